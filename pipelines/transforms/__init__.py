"""One transform a file: what judges, edits and extends documents. They know no engine and no I/O."""

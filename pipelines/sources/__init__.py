"""Where records come from: one file for each kind of source, all of them turning a split into batches of documents."""

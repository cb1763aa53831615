"""The report that is signed: one HTML page and one JSON file of the same figures, from a plan, a run or an output."""

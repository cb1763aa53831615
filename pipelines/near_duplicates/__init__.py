"""Near-duplicates: sets of shingles, MinHash signatures, keys of bands, and true Jaccard similarity."""

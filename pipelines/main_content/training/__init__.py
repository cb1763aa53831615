"""How the extractor of main content is trained and measured: pages, labels, scores. Nothing here runs in a pipeline."""

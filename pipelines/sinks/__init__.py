"""Where rows go: tables (documents, rejects, and the small tables of a stage) and token shards."""

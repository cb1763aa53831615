"""Raw bytes to token shards: sources, transforms, engines, sinks, the ledger and the recipe that names them."""

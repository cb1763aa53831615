"""From token shards to a plan: what a run eats, in which order, as exact integers; and the report that is signed."""

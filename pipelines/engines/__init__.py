"""What carries a stage out: `map` and `group` for one split (any engine), and the engines themselves."""

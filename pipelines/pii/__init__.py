"""Personal data and secrets in text: tables, checks of candidates, and the pass that finds them."""

"""The quality classifier: hashed words and pairs of words, a linear model in integers, and how it is trained."""

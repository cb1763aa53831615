"""Main content of web pages: an HTML kernel, a block classifier, and the text that is left."""

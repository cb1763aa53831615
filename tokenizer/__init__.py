"""The leaf of the tree: text to token ids, rendering of conversations, token shards and their manifests.

Imports nothing of the other packages; they meet it in files and in these calls.
"""

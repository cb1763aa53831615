"""Decontamination: an index of evaluation items, and where texts repeat them. See docs/decontamination.md."""

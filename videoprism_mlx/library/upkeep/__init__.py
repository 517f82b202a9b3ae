"""Keeping a library in order: checking it, removing what is gone, and exporting it."""

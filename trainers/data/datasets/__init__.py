"""Data sets as sources: examples by number."""

"""Data sources, preprocessing and batching; nothing here knows what a model is."""

"""Data: examples by number, preprocessed and batched by step."""

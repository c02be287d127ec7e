"""Exports a model, and compares the export with it in its own runtime."""

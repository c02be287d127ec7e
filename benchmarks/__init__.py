"""Measurements: each writes a CSV into benchmarks/results."""

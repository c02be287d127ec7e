"""Faults, corruption and hostile input, many of each: `python -m benchmarks.reliability`."""

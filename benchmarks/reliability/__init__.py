"""Faults, corruption and hostile input, many of each: `python -m benchmarks.reliability`.

A module a part; each can be run alone, `python -m benchmarks.reliability.NAME`. The tests
hold short forms of them.
"""

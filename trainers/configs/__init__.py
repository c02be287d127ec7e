"""Recipes: the docstring of each says command, hardware and expected result.

`get_config` returns the keys that differ from `base_config` (configuration/configuration.py).
"""

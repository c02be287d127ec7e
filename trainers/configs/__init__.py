"""Experiments: one file each; its docstring says command, time and expected result."""

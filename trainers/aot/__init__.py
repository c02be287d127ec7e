"""Compiles the steps of a configuration without running them, here or for a TPU slice."""

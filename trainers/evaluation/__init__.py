"""Evaluates a model on sets of examples, each exactly once."""

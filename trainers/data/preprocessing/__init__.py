"""Decodes, crops and augments examples on the host."""

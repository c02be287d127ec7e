"""Helpers that know nothing of training: files, errors, processes, reporting."""

"""Converts video files to TFRecord shards."""

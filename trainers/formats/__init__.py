"""The formats that `trainers.export` writes, and the check of what it has written."""

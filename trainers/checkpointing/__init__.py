"""What a run leaves on disk: checkpoints, the work directory, model files."""

"""What happens to one batch: losses, metrics, optimizer and the training step."""

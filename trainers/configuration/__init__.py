"""Every key of a configuration, and its check."""

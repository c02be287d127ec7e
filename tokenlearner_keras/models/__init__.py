"""Vision Transformers for images and video, built from a configuration or a name."""

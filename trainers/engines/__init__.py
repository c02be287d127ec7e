"""What differs between TensorFlow and JAX; everything else of the trainer is written once."""

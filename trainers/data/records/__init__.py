"""Random access to the records of TFRecord and ArrayRecord files."""

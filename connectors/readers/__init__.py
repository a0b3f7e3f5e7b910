"""Files -> raw batches, a module a format."""

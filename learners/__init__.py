"""Continual learning of the next-item model: arrays in, checkpoints out. No Kafka."""

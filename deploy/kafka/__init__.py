"""A Kafka to develop and test with."""

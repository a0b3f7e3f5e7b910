"""The live driver: Faust workers on Kafka, and what produces for them."""

"""The pure core: clicks in, effects out. No I/O, no clock, no Kafka, no torch."""

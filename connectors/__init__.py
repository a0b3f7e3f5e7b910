"""All input and output: files, RocksDB, Kafka, the command line."""

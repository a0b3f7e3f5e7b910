"""Which partitions a topic has."""

from __future__ import annotations

from aiokafka import AIOKafkaProducer, TopicPartition

from connectors.kafka.security import client_config
from connectors.kafka.settings import BusError, Kafka


async def partitions(kafka: Kafka, topic: str) -> list[TopicPartition]:
    """Return a topic's partitions in order; the topic is not created by asking.

    Raises:
        BusError: there is no such topic.
        KafkaError: no broker answers, or none lets us in.
    """
    producer = AIOKafkaProducer(**client_config(kafka))  # of all clients it shows its metadata
    try:
        await producer.start()
        numbers = (await producer.client.fetch_all_metadata()).partitions_for_topic(topic)
    finally:
        await producer.stop()
    if not numbers:
        raise BusError(f"topic {topic} is not there: make it with `driftline topics create`")
    return [TopicPartition(topic, number) for number in sorted(numbers)]

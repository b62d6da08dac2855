"""A consumer for the offsets of a group. It reads no record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException

from .admin import Admin
from .client import consumer_config, open_client


@contextmanager
def group_consumer(admin: Admin, group: str, client_class: Callable[..., Consumer] = Consumer) -> Iterator[Consumer]:
    """Open a consumer for one request about the group's offsets.

    An AdminClient would do without the group's own client. But librdkafka 2.16 aborts the process when a coordinator
    goes away while an AdminClient asks for or changes a group's offsets (confluentinc/librdkafka#5397, and measured).

    Raises:
        KafkaException: the client's report, such as a missing right, rather than the time-out of the request.
    """
    consumer = open_client(client_class, consumer_config(admin.kafka, group, 0, admin.client_id), admin.logger)
    try:
        yield consumer
    except KafkaException as error:
        event = consumer.poll(0)
        report = event.error() if event is not None else None
        raise (error if report is None else KafkaException(report)) from error
    finally:
        consumer.close()

"""librdkafka's own mock cluster, called in the library of the loaded client.

confluent-kafka for Python offers the cluster only as a client setting (``test.mock.num.brokers``), without a choice of
partitions per topic. The C functions offer the choice, and the client's extension module leads to the functions.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import cimpl

from .server import LocalServerError

_PRODUCER = 0


@contextmanager
def mock_cluster(topics: list[str], partitions: int) -> Iterator[str]:
    """A mock broker on 127.0.0.1 for the block, with empty topics. Yields the bootstrap address.

    Raises LocalServerError when the library refuses a topic.
    """
    library = load_library()
    reason = ctypes.create_string_buffer(512)
    settings = library.rd_kafka_conf_new()
    # The client that owns the cluster talks to no broker. At log level 4 it does not warn about that.
    library.rd_kafka_conf_set(settings, b"log_level", b"4", reason, len(reason))
    client = library.rd_kafka_new(_PRODUCER, settings, reason, len(reason))
    if not client:
        raise LocalServerError(f"the embedded broker did not start: {reason.value.decode()}")
    cluster = library.rd_kafka_mock_cluster_new(client, 1)
    try:
        if not cluster:
            raise LocalServerError("the embedded broker did not start: no mock cluster in this client library")
        for topic in topics:
            if code := library.rd_kafka_mock_topic_create(cluster, topic.encode(), partitions, 1):
                error = library.rd_kafka_err2str(code).decode()
                raise LocalServerError(f"the embedded broker refused topic {topic!r}: {error}")
        yield library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
    finally:
        if cluster:
            library.rd_kafka_mock_cluster_destroy(cluster)
        library.rd_kafka_destroy(client)


def load_library() -> ctypes.CDLL:
    """The functions used here with their C signatures. The lookup covers the extension's dependencies too."""
    library = ctypes.CDLL(cimpl.__file__)
    pointer, text, integer = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[object, list[object]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (integer, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [integer, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_err2str": (text, [integer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, integer]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (integer, [pointer, text, integer, integer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library

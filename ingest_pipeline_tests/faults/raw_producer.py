"""A producer for header names with NUL or bytes outside UTF-8. confluent-kafka can read such records but not write
them.

The producer calls the C functions of the loaded client library.
"""

import ctypes
from typing import Any, Self

from confluent_kafka import cimpl

RawHeaders = list[tuple[bytes, bytes | None]]

_PRODUCER = 0
_END, _TOPIC, _PARTITION, _VALUE, _KEY, _FLAGS, _HEADERS = 0, 1, 3, 4, 5, 7, 10
_COPY = 2
_FLUSH_MS = 30_000


class RawProducer:
    """Writes to one broker, in order."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._library = _library()
        error = ctypes.create_string_buffer(512)
        config = self._library.rd_kafka_conf_new()
        for name, value in {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": "true",
            "message.max.bytes": "2000000",
        }.items():
            assert self._library.rd_kafka_conf_set(config, name.encode(), value.encode(), error, len(error)) == 0
        self._client = self._library.rd_kafka_new(_PRODUCER, config, error, len(error))
        assert self._client, error.value.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.rd_kafka_destroy(self._client)

    def produce(self, topic: str, partition: int, value: bytes, key: bytes, headers: RawHeaders) -> None:
        """Queue a record. `flush` waits for its arrival."""
        listed = self._library.rd_kafka_headers_new(len(headers))
        for name, content in headers:
            size = -1 if content is None else len(content)
            self._check(self._library.rd_kafka_header_add(listed, name, len(name), content, size))
        size_t, whole = ctypes.c_size_t, ctypes.c_int
        arguments: list[Any] = [whole(_TOPIC), ctypes.c_char_p(topic.encode()), whole(_PARTITION)]
        arguments += [ctypes.c_int32(partition), whole(_FLAGS), whole(_COPY)]
        arguments += [whole(_VALUE), ctypes.c_char_p(value), size_t(len(value))]
        arguments += [whole(_KEY), ctypes.c_char_p(key), size_t(len(key))]
        arguments += [whole(_HEADERS), ctypes.c_void_p(listed), whole(_END)]
        self._check(self._library.rd_kafka_producev(self._client, *arguments))

    def flush(self) -> None:
        """Returns after all acknowledgements."""
        self._check(self._library.rd_kafka_flush(self._client, _FLUSH_MS))

    def _check(self, code: int) -> None:
        assert code == 0, self._library.rd_kafka_err2str(code).decode()


def _library() -> ctypes.CDLL:
    """The C functions in use, with their signatures. A lookup also searches the extension's dependencies."""
    library = ctypes.CDLL(cimpl.__file__)
    pointer, text, whole, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_ssize_t
    signatures: dict[str, tuple[object, list[object]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (whole, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [whole, pointer, text, ctypes.c_size_t]),
        "rd_kafka_headers_new": (pointer, [ctypes.c_size_t]),
        "rd_kafka_header_add": (whole, [pointer, text, size, text, size]),
        "rd_kafka_producev": (whole, [pointer]),
        "rd_kafka_flush": (whole, [pointer, whole]),
        "rd_kafka_err2str": (text, [whole]),
        "rd_kafka_destroy": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library

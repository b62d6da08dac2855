"""Runs a question in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

T = TypeVar("T")


class Background(Protocol):
    """Answers a question, perhaps later."""

    def __call__(self, question: Callable[[], T], /) -> Future[T]: ...


def in_background(question: Callable[[], T], /) -> Future[T]:
    """Start `question`, and return its future result. A silent broker does not delay the end of the process."""
    future: Future[T] = Future()
    threading.Thread(target=_answer, args=(future, question), name="kafka-question", daemon=True).start()
    return future


def _answer(future: Future[T], question: Callable[[], T]) -> None:
    try:
        result = question()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)

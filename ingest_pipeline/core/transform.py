"""A stream's own function between decoding and storing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .errors import RecordRefused, RecordSkipped, RefusalStage
from .reasons import reason_of


class Transform:
    """Calls the function and checks its result.

    Args:
        function: from an event to an event, to None for no row, or to a list of events where `events` is called.
        event_type: of the result, whose types and constraints the result must have.
    """

    def __init__(self, function: Callable[[Any], Any], event_type: type[msgspec.Struct]) -> None:
        self._function, self._event_type = function, event_type

    def __call__(self, event: Any) -> Any:
        """The event to store. Raises RecordSkipped for None, and RecordRefused if the function raises."""
        changed = self._called(event)
        if changed is None:
            raise RecordSkipped("the stream's transform stores no row", stage=RefusalStage.DECODE)
        if isinstance(changed, list):
            raise RecordRefused("the transform returned a list, which needs many=True", stage=RefusalStage.DECODE)
        return self._checked(changed)

    def events(self, event: Any) -> list[Any]:
        """The events to store, of a function that may return a list. Raises RecordRefused."""
        changed = self._called(event)
        if changed is None:
            return []
        return list(map(self._checked, changed if isinstance(changed, list) else [changed]))

    def _called(self, event: Any) -> Any:
        try:
            return self._function(event)
        except MemoryError:
            raise
        except Exception as error:
            raise RecordRefused(
                f"refused by the stream's transform ({type(error).__name__})", stage=RefusalStage.DECODE
            ) from None

    def _checked(self, changed: Any) -> Any:
        try:
            return msgspec.convert(changed, self._event_type, from_attributes=True)
        except MemoryError:
            raise
        except Exception as error:  # a check of the event may raise any exception
            raise RecordRefused(f"{reason_of(error)}, after the transform", stage=RefusalStage.DECODE) from None

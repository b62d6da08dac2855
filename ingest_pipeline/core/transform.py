"""A stream's own function between decoding and storing."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import msgspec

from .errors import RecordRefused, RecordSkipped
from .fields import Field
from .nesting import Shape, StructVariant
from .reasons import reason_of


class Transform:
    """Calls the function and checks its result.

    Args:
        function: from an event to an event, to None for no row, or to a list of events where `events` is called.
        shape: of the event, whose types and constraints the result must have.
    """

    def __init__(self, function: Callable[[Any], Any], shape: Shape) -> None:
        self._function = function
        # A type of its own, because msgspec does not check instances of the type itself, as an event changed in place.
        self._event_type = StructVariant(shape, _type_of_result).type

    def __call__(self, event: Any) -> Any:
        """The event to store. Raises RecordSkipped for None, and RecordRefused if the function raises."""
        changed = self._called(event)
        if changed is None:
            raise RecordSkipped("the stream's transform stores no row")
        if isinstance(changed, list):
            raise RecordRefused("the transform returned a list, which needs many=True")
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
            raise RecordRefused(f"refused by the stream's transform ({type(error).__name__})") from None

    def _checked(self, changed: Any) -> Any:
        try:
            return msgspec.convert(changed, self._event_type, from_attributes=True)
        except MemoryError:
            raise
        except Exception as error:  # a check of the event may raise any exception
            raise RecordRefused(f"{reason_of(error)}, after the transform") from None


def _type_of_result(item: Field) -> Any:
    """The declared type. A time of another form was read before."""
    if item.time_form is None:
        return item.decode_type
    result: Any = Annotated[datetime, msgspec.Meta(tz=True)] if item.python_type is datetime else item.python_type
    return result | None if item.nullable else result

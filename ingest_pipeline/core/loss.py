"""Telling what became of offsets that are not in the log any more."""

from __future__ import annotations

from .errors import DataLoss


def data_loss(where: str, partition: int, expected: int, low: int, high: int) -> DataLoss:
    """What became of the next offset, as far as the log's bounds tell.

    `.where` holds partition, offset (the expected one), low, high and cause: "retention", "truncated"
    or "rewritten".
    """
    if expected < low:
        cause, what = "retention", f"offsets {expected} to {low - 1} were deleted before they were read"
    elif expected > high:
        cause, what = (
            "truncated",
            f"the log ends at {high}, before the next offset {expected}: it was cut or re-created",
        )
    else:
        cause, what = (
            "rewritten",
            f"what stood before offset {expected} was replaced: the log was cut and regrew",
        )
    return DataLoss(
        f"{where}, partition {partition}: {what} (the log holds {low} to {high}). Nothing was skipped;"
        " the stream stops until an operator accepts the gap",
        partition=partition,
        offset=expected,
        low=low,
        high=high,
        cause=cause,
    )

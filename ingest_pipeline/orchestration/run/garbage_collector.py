"""The garbage collector of a process that drains."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

CONTAINERS = 100_000
"""Two full transactions of 10,000 records hold fewer (26,000 each), so draining itself never starts a collection."""


@contextmanager
def paused_garbage_collector() -> Iterator[None]:
    """Leave what Dagster and the imports have built out of the collector's walks, and walk less often.

    A batch makes thousands of tuples at once, which is what starts a collection, and a full one walks Dagster's half
    a million objects: it took 32 % of a run's CPU. Reference counting frees the batches without it.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(CONTAINERS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

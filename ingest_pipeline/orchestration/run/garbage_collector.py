"""The garbage collector of a process that drains."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

CONTAINERS = 100_000
"""Two full transactions of 10,000 records hold fewer objects (26,000 each), so draining alone never starts a
collection."""


@contextmanager
def paused_garbage_collector() -> Iterator[None]:
    """Exclude the objects of Dagster and of imports from garbage collection, and collect less often.

    A batch creates thousands of tuples, which starts collections. A full collection walks half a million objects of
    Dagster, which took 32 % of a run's CPU. Reference counting frees the batches anyway.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(CONTAINERS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

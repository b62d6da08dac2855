"""`make fuzz RECORDS=n SEED=s`: does every malformed record become a row, a dead letter or a skipped tombstone?

Needs Kafka and PostgreSQL as the tests do. The last line gives the result. The exit code is 0 only without problems.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline_tests.faults.fuzz_world import FuzzWorld
from ingest_pipeline_tests.servers import choose

BLOCK = 10_000
SHOWN = 20


def fuzz(world: FuzzWorld, count: int, seed: int) -> list[str]:
    """Write and drain blocks until `count` records are done or a problem appears. Returns the problems."""
    with progress("records", count) as show:
        for first in range(0, count, BLOCK):
            world.block(f"{seed}/{first}", min(BLOCK, count - first), lambda done, first=first: show(first + done))
            if world.problems:
                break
    return world.problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ingest-fuzz-") as temporary:
        folder = Path(temporary)
        (folder / "dagster").mkdir()
        with (
            choose.real_kafka(folder / "kafka") as kafka,
            EmbeddedPostgres(folder / "postgres") as postgres,
            FuzzWorld.open(kafka, postgres.url, folder / "dagster") as world,
        ):
            problems = fuzz(world, given.records, given.seed)
            print_kinds(world)
    for problem in problems[:SHOWN]:
        print(problem)
    verdict = f"FAILED: {len(problems)} problems" if problems else "OK: a row, a dead letter or a tombstone each"
    print(f"{verdict}; {given.records:,} records, seed {given.seed}, {time.monotonic() - begun:.0f} s")
    return 1 if problems else 0


def print_kinds(world: FuzzWorld) -> None:
    for stream in world.streams:
        print(f"{stream.stream.name:<24}{'rows':>10}{'letters':>10}{'skipped':>10}")
        for kind, became in sorted(stream.kinds.items()):
            print(f"  {kind:<22}{became['row']:>10,}{became['dead letter']:>10,}{became['skipped']:>10,}")
        print(f"  refused at: {', '.join(f'{stage} {count:,}' for stage, count in stream.stages.most_common())}")


if __name__ == "__main__":
    sys.exit(main())

"""`make simulate`: fresh examples until so many steps are done, what happened in them, and a verdict.

python -m ingest_pipeline_tests.simulation --steps 100000 --seed 7
"""

import argparse
import secrets
import sys
import time
import traceback

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from ingest_pipeline.cli.progress import progress
from ingest_pipeline_tests.simulation.database import REFUSALS
from ingest_pipeline_tests.simulation.machine import TOLD, Simulation

EXAMPLES = 100
"""In one go; the next go has the next seed."""
LONG_STEPS = 50_000
"""A run of so many steps has to have met everything in HAPPENS."""
FENCES = ("write: Superseded", "recover: Superseded")
HAPPENS = (
    *FENCES,
    *("killed at before write", "killed at after write, before commit", "killed at decode", "killed at acknowledge"),
    *("killed at after commit, before acknowledgement", "killed at store", "killed at accept"),
    *("in doubt: committed", "in doubt: not committed", "ghosts reported failed"),
    *("launches after a failure", "successors launched: reshard", "successors launched: definition"),
    *("losses accepted: retention", "losses accepted: truncated", "losses accepted: rewritten"),
    *("losses accepted: other topic", "write: DeadLetterLimit", "letters redriven", "letters discarded"),
    *("rows replayed", "replays without a change beside them", "partitions added", "run ended: paused"),
    *("run ended: failed:DataLoss", "run ended: failed:TopicChanged", "run ended: superseded", "run ended: yielded"),
    *("run ended: failed:DatabaseUnavailable", "run ended: failed:KafkaUnavailable", "run ended: terminated"),
    *(f"refused: {refusal.__name__}" for refusal in REFUSALS),
    *("stored as of the topic before", "stored again, as was said"),
    *("topics deleted", "streams moved", "others caught up", "write: TableBusy", "rule trouble"),
    *("transactions committed", "transactions aborted", "records compacted", "leaders changed", "offsets cut"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ingest_pipeline_tests.simulation")
    parser.add_argument("--steps", type=int, default=20_000, help="how many rules to apply, at least")
    parser.add_argument("--seed", type=int, default=None, help="of the first examples; else another one each time")
    arguments = parser.parse_args()
    first = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    began = time.monotonic()
    print(f"seed {first}", flush=True)
    number = first
    try:
        with progress("steps", arguments.steps) as show:
            Simulation.observe = staticmethod(lambda: show(TOLD["steps"], more=f"; {_other_counts()}"))
            while TOLD["steps"] < arguments.steps:
                seed(number)(Simulation)
                run_state_machine_as_test(Simulation, settings=_settings())
                number += 1
    except Exception:
        traceback.print_exc(file=sys.stdout)
        print(f"FAILED with --seed {number} after {time.monotonic() - began:.0f} s: {_main_counts()}")
        return 1
    for name in sorted(TOLD):
        print(f"{TOLD[name]:>10,}  {name}")
    missed = [name for name in HAPPENS if not TOLD[name]] if TOLD["steps"] >= LONG_STEPS else []
    verdict = f"never happened: {', '.join(missed)}" if missed else "every invariant held"
    print(f"{verdict}: seeds {first} to {number - 1}, {time.monotonic() - began:.0f} s, {_main_counts()}")
    return 1 if missed else 0


def _settings() -> settings:
    return settings(
        max_examples=EXAMPLES,
        stateful_step_count=50,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )


def _main_counts() -> str:
    return f"{TOLD['steps']:,} steps, {_other_counts()}"


def _other_counts() -> str:
    def total(start: str) -> int:
        return sum(count for name, count in TOLD.items() if name.startswith(start))

    return (
        f"{TOLD['runs launched']:,} runs, {total('killed at'):,} kills,"
        f" {sum(TOLD[name] for name in FENCES):,} fences, {total('losses accepted'):,} losses accepted,"
        f" {TOLD['rows replayed']:,} rows replayed"
    )


if __name__ == "__main__":
    sys.exit(main())

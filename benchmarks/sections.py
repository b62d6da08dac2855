"""What each part of `make bench` measures, as a section of docs/benchmarks.md."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import click

from ingest_pipeline.settings import StreamSettings

from . import document, latency
from .asked import BAD, bad_records, killed_and_restarted
from .idle import idle, make_topics, trickle
from .isolation import BATCH, seconds_a_batch
from .kills import stored, survive
from .rates import quantile, spread
from .shapes import Shape, drain, each, produce
from .stuck import stuck
from .system import System
from .throughput import COMPARED, OTHERS, OURS, VARIANTS, Rate, measure

SPREAD = ("min", "median", "max")


@dataclass(frozen=True)
class Effort:
    """How often designs are repeated, how much less than usual is measured (for trying the bench itself), and whether
    docs/ are renewed."""

    repeats: int
    scale: float
    write: bool

    def of(self, amount: int) -> int:
        return max(1, round(amount * self.scale))


def throughput(running: System, effort: Effort) -> str:
    records = running.produce(effort.of(2_000_000), broken_every=0).acknowledged
    names = [*OTHERS, *VARIANTS]
    found = [measure(running, records, names) for _ in range(effort.repeats)]

    def ratios(name: str, to: str) -> str:
        return spread([one[name].steady / one[to].steady for one in found], 2)

    rates = [(name, spread([one[name].steady for one in found]), *_median_costs(found, name)) for name in names]
    return "\n\n".join(
        [
            f"{records:,} records of about 90 bytes stand in two topics of 4 partitions; each design drains\n"
            "them into tables of its own, with a primary key on the Kafka coordinates. Rows a second of both topics\n"
            "together while both are drained (10 % to 90 %). Ours goes through sensor-launched runs of `dagster dev`;\n"
            "its CPU is that of the runs' processes. All designs one after the other on the same servers,\n"
            f"{effort.repeats} times.",
            document.table(
                ["design", *(f"rows/s, {name}" for name in SPREAD), "client CPU a row, µs", "most resident MiB"], rates
            ),
            document.table(["ratio", *SPREAD], [(f"{name} / {to}", ratios(name, to)) for name, to in COMPARED]),
        ]
    )


def _median_costs(found: list[dict[str, Rate]], name: str) -> tuple[str, str]:
    cpu, memory = ([getattr(one[name], what) for one in found] for what in ("cpu_us", "rss_mib"))
    return f"{statistics.median(cpu):.2f}", f"{max(memory):.0f}"


def latencies(running: System, effort: Effort) -> str:
    rows, grown = [], []
    for name, seconds, settings in (
        ("default settings, RUN_MAX_SECONDS=150", 600.0, {"RUN_MAX_SECONDS": "150"}),
        ("BATCH_TIMEOUT=0.1, RUN_MAX_SECONDS=60", 180.0, {"RUN_MAX_SECONDS": "60", "BATCH_TIMEOUT": "0.1"}),
    ):
        one = latency.steady_load(running, seconds * effort.scale, 1000, settings)
        click.echo(f"  {name}: {one}")
        figures = (one.p50, one.p99, one.longest, one.between_commits, one.hand_over_seconds)
        rows.append((name, f"{one.records:,}", *(f"{value:.3f}" for value in figures), str(one.hand_overs)))
        grown.append(f"{one.dagster_mib:.1f} MiB in {one.seconds:.0f} s with {one.runs} runs ({name})")
    a_day = 86_400 // StreamSettings().run_max_seconds
    return "\n\n".join(
        [
            "1,000 records a second over both topics, drained by sensor-launched runs. Seconds from a record's Kafka\n"
            "timestamp until another connection sees it committed. Commits are a partition's; a hand-over counts once\n"
            "for each.",
            document.table(
                [
                    "settings",
                    "records",
                    "p50",
                    "p99",
                    "longest",
                    "between two commits, p99",
                    "between the commits of two runs, longest",
                    "hand-overs",
                ],
                rows,
            ),
            f"Dagster's storage grew by {' and by '.join(grown)}.\nAt constant traffic and default settings a stream"
            f" has {a_day} runs a day.",
        ]
    )


def cold(running: System, effort: Effort) -> str:
    found = latency.cold_starts(running, effort.of(20))
    columns = [[getattr(one, name) for one in found] for name in ("whole", "launch", "own")]
    names = (
        "until the row is there",
        "of these Dagster's, run created to op begun",
        "of these ours, op begun to first transaction",
    )
    return "\n\n".join(
        [
            f"One record to an idle stream without a run, {len(found)} times, default POLL_SECONDS and BATCH_TIMEOUT."
            f" Seconds. `import dagster` alone took a new process {latency.import_seconds():.2f} s at the end of it.",
            document.table(
                ["", *SPREAD, "p95"],
                [
                    (name, spread(values, 2), f"{quantile(values, 0.95):.2f}")
                    for name, values in zip(names, columns, strict=True)
                ],
            ),
        ]
    )


def memory(running: System, effort: Effort) -> str:
    records = running.produce(effort.of(10_000_000), broken_every=0).acknowledged
    (backlog,) = measure(running, records, [OURS]).values()
    before, meanwhile = stuck(running, records // 20, 40.0 * effort.scale)
    click.echo(f"  PostgreSQL does not answer: {before:.0f} MiB before, {meanwhile:.0f} MiB meanwhile")
    large = Shape(size=1_000_000)
    count = effort.of(1000)
    produce(running, large, count)
    rate, rss = drain(running, large, count, {})
    click.echo(f"  1 MB records: {rate:,.0f} rows/s, {rss:.0f} MiB")
    return "Resident MiB of a run's process, default settings, at most.\n\n" + document.table(
        ["backlog", "MiB", "rows/s"],
        [
            (f"{records:,} records of about 90 bytes", f"{backlog.rss_mib:.0f}", f"{backlog.steady:,.0f}"),
            (f"the same, while PostgreSQL does not answer ({before:.0f} before)", f"{meanwhile:.0f}", "0"),
            (f"{count:,} records of 1,000,000 bytes", f"{rss:.0f}", f"{rate:,.0f}"),
        ],
    )


def idling(running: System, effort: Effort) -> str:
    streams, seconds = effort.of(100), 120.0 * effort.scale
    make_topics(running, streams)
    rows = []
    for poll in (1, 60):
        for skip in (True, False):
            one = idle(running, streams, poll, seconds, skip=skip)
            what = "sensors that only skip" if skip else "streams of 4 partitions"
            click.echo(f"  {streams} {what}, POLL_SECONDS={poll}: {one}")
            rows.append((f"{streams} {what}", str(poll), f"{one.cores:.2f}", f"{one.sessions:.0f}"))
    return f"CPU of all of `dagster dev` over {seconds:.0f} s, nothing coming in.\n\n" + document.table(
        ["what", "POLL_SECONDS", "cores", "PostgreSQL sessions"], rows
    )


def trickling(running: System, effort: Effort) -> str:
    streams, seconds = effort.of(10), 120.0 * effort.scale
    make_topics(running, streams)
    rows = []
    for every in (120, 30):
        for run_idle in (0, 60):
            one = trickle(running, streams, every, run_idle, seconds)
            what = f"a record every {every} s"
            click.echo(f"  {what}, RUN_IDLE_SECONDS={run_idle}: {one}")
            figures = (1000 * one.cores / streams, one.mib / streams, one.sessions / streams)
            rows.append((what, str(run_idle), f"{figures[0]:.0f}", f"{figures[1]:.0f}", f"{figures[2]:.1f}"))
    return (
        f"{streams} streams of 4 partitions on each of which a record comes now and then. A stream's share of all of\n"
        f"`dagster dev` and its runs, over {seconds:.0f} s.\n\n"
    ) + document.table(["what comes", "RUN_IDLE_SECONDS", "thousandths of a core", "MiB", "PostgreSQL sessions"], rows)


def shape(running: System, effort: Effort) -> str:
    base, records, made = Shape(), effort.of(1_000_000), set[str]()
    tables, plots = [], {}
    for name, of in (
        ("BATCH_SIZE", [(str(size), base, {"BATCH_SIZE": str(size)}) for size in (100, 1000, 5000, 20_000)]),
        ("bytes a record", _cases(base, "size", (100, 1000, 10_000, 100_000))),
        ("columns", _cases(base, "columns", (3, 10, 50))),
        ("partitions", _cases(base, "partitions", (1, 4, 16, 64))),
        ("refused by the decoder, per 1,000", _cases(base, "refused", (0, 1, 10, 100))),
    ):
        rates = {}
        for label, one, settings in of:
            count = min(records, 1_000_000_000 // max(one.size, 1000))
            if one.topic not in made:
                made.add(one.topic)
                produce(running, one, count)
            rates[label] = drain(running, one, count, settings)[0]
            click.echo(f"  {name} {label}: {rates[label]:,.0f} rows/s")
        tables.append(document.table([name, "rows/s"], [(label, f"{rate:,.0f}") for label, rate in rates.items()]))
        plots[name] = rates
    image = document.DOCUMENT.parent / "images" / "shape.svg"
    if effort.write:
        image.write_text(document.bars(plots))
    return "\n\n".join(
        [
            "One stream, one run in a process of its own; default settings, 3 columns, 4 partitions, 100 bytes, unless"
            " the table says otherwise.",
            f"![rows a second](images/{image.name})",
            *tables,
        ]
    )


def _cases(base: Shape, name: str, values: tuple[int, ...]) -> list[tuple[str, Shape, dict[str, str]]]:
    return [(f"{value:,}", one, {}) for value, one in zip(values, each(base, name, values), strict=True)]


def refused(running: System, effort: Effort) -> str:
    rows = []
    plain, _ = seconds_a_batch(running, 0, 50)
    for count in (1, 10, 100):
        by_line, halving = seconds_a_batch(running, count, 20)
        rows.append((str(count), f"{by_line / plain:.1f}", f"{halving / plain:.1f}", f"{halving / by_line:.1f}"))
    return (
        f"Time for a batch of {BATCH:,} rows of which some break a CHECK, beside one that breaks none.\n\n"
        + document.table(["refused", "by the line COPY names", "by halving", "ratio of the two"], rows)
    )


def killed(running: System, effort: Effort) -> str:
    survived = survive(running, effort.of(400_000), effort.of(20), seed=1)
    click.echo(str(survived))
    if survived.lost or survived.twice or survived.dead_letters != survived.broken:
        raise SystemExit("records were lost or doubled")
    return str(survived)


def asked(running: System, effort: Effort) -> str:
    few, many = effort.of(10_000), effort.of(600_000)
    rows, reasons = bad_records(running, few)
    loaded, first_row = killed_and_restarted(running, many)
    everything, distinct = stored(running)
    lost, twice = few + many - distinct - len(reasons), everything - distinct
    click.echo(f"  {rows:,} rows, {len(reasons)} dead letters; {lost} lost, {twice} twice; {first_row:.1f} s")
    if rows != few - len(BAD) or len(reasons) != len(BAD) or lost or twice:
        raise SystemExit("records were lost or doubled")
    return "The questions of [the comparison](comparison.md), put to this one, default settings.\n\n" + document.table(
        ["asked", "answer"],
        [
            (f"{few:,} records, among them {', '.join(BAD)}: good rows stored", f"{rows:,}"),
            ("the bad records kept, with the reason", "; ".join(f"`` {reason} ``" for reason in reasons)),
            (f"`kill -9` of Dagster and its runs in the middle of {many:,} records, then a restart: rows doubled", "0"),
            ("the same: records lost", "0"),
            ("first new row after the command that starts it again", f"{first_row:.1f} s"),
            ("of these, until Dagster had loaded the code", f"{loaded:.1f} s"),
        ],
    )

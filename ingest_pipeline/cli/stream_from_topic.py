"""`ingest stream-from-topic`: a declaration for a topic, from its records."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

import click

from ..settings import settings_of

if TYPE_CHECKING:
    from ..operations.sample import Sample


@click.command()
@click.argument("topic")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print a defs.yaml of ingest_pipeline.KafkaToPostgres.")
@click.option("--name", help="The stream's name. Default: the topic with _ for other signs.")
@click.option(
    "-n", "records", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="How many records to read."
)
def stream_from_topic(topic: str, as_yaml: bool, name: str | None, records: int) -> None:
    """Print a stream for a topic: Python for streams.py, or YAML.

    The types come from the topic's newest records, or from the schema registry where the records carry schema ids. No
    consumer group is used, and nothing is stored. Check the types before you use them: a sample shows no later value.

    Example: ingest stream-from-topic meters.readings --yaml
    """
    from ..core.inferred_text import python_text, yaml_text
    from ..operations.clients import Clients
    from ..operations.sample import sample_of, unknown_stream

    stream = unknown_stream(topic)
    with closing(Clients(settings_of([stream]))) as clients:
        sample = sample_of(clients, stream, records)
    text = yaml_text if as_yaml else python_text
    click.echo(text(name or _stream_name(topic), topic, sample.inferred, sample.record_format), nl=False)
    for line in _remarks(topic, sample):
        click.echo(line, err=True)


def _stream_name(topic: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", topic.lower()).strip("_")[:40].rstrip("_")
    return name if name[:1].isalpha() else f"t_{name}"[:40]


def _remarks(topic: str, sample: Sample) -> list[str]:
    from ..core.start import unanswered_words

    source = f"{sample.schema} in the registry" if sample.schema else f"{sample.records:,} records"
    lines = [f"{topic}: the types come from {source}"]
    if sample.unanswered:
        lines.append(f"Not read: {unanswered_words(sample.unanswered)}")
    if sample.unreadable:
        lines.append(f"{sample.unreadable:,} of these records are no JSON objects and would become dead letters")
    if sample.inferred.left_out:
        keys = ", ".join(sample.inferred.left_out[:10])
        lines.append(f"keys without a common type, or that a field cannot have: {keys}")
    return lines

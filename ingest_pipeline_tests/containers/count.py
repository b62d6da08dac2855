"""What the containers have stored, by SQL and by the topics' ends."""

from collections.abc import Mapping

from confluent_kafka import Consumer, TopicPartition

from ingest_pipeline.local.server import HOST
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import query

_ENDS = """SELECT status, value, count(*) FROM runs JOIN run_tags USING (run_id)
    WHERE key = 'ingest/ended' GROUP BY 1, 2 ORDER BY 1, 2"""


class Counts:
    """Args: env: ports and passwords of docker-compose.yml."""

    def __init__(self, bootstrap_servers: str, env: Mapping[str, str]) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._url, self._dagster_url = (
            f"postgresql://{role}:{env[password]}@{HOST}:{env['POSTGRES_PORT']}/{role}"
            for role, password in (("ingest", "INGEST_PASSWORD"), ("dagster", "DAGSTER_PASSWORD"))
        )

    def rows(self) -> list[int]:
        """Rows of every table. 0 without the table, and without PostgreSQL."""
        return [self._rows(stream.table) for stream in STREAMS]

    def complete(self) -> bool:
        """Whether every record is accounted for."""
        offsets = "SELECT coalesce(sum(next_offset), 0)::int FROM ingest.position WHERE stream = %s"
        return all(query(self._url, offsets, stream.name)[0] == self._records(stream.topic) for stream in STREAMS)

    def verify(self) -> None:
        """Compare rows and dead letters with the records of the topics, and print the ends of runs."""
        for stream in STREAMS:
            ((rows, distinct),) = query(
                self._url,
                f"SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)) FROM {stream.table}",
            )
            (letters,) = query(self._url, "SELECT count(*) FROM ingest.dead_letter WHERE stream = %s", stream.name)
            records = self._records(stream.topic)
            print(f"{stream.name}: {records} records, {rows} rows, {letters} dead letters")
            assert rows == distinct
            assert rows + letters == records
        ends = query(self._dagster_url, _ENDS)
        print(f"runs: {ends}")
        assert ("SUCCESS", "signal") in {(status, ended) for status, ended, _ in ends}

    def _rows(self, table: str) -> int:
        from psycopg import OperationalError

        try:
            (exists,) = query(self._url, "SELECT to_regclass(%s) IS NOT NULL", table)
            return int(query(self._url, f"SELECT count(*) FROM {table}")[0]) if exists else 0
        except OperationalError:
            return 0

    def _records(self, topic: str) -> int:
        consumer = Consumer({"bootstrap.servers": self._bootstrap_servers, "group.id": "count"})
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            ends = (consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in partitions)
            return sum(high for _, high in ends)
        finally:
            consumer.close()

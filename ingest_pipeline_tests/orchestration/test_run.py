"""Runs in this process, on a real Dagster instance, Kafka and PostgreSQL: how they end and what they report."""

import os
from collections import defaultdict
from collections.abc import Callable

import dagster as dg
import pytest

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.checks import CHECKS
from ingest_pipeline_tests.orchestration.bench import Bench, ChangedClients, failure, metadata
from ingest_pipeline_tests.orchestration.conftest import PRICE, TEMPERATURE
from ingest_pipeline_tests.orchestration.records import prices, produce, temperatures, with_broken

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]


def ledger_adds_up(bench: Bench) -> bool:
    """Every offset is accounted for, in every partition."""
    accounted = 'next_offset - first_offset = "rows" + dead_letters + skipped + absent + lost'
    return all(bench.query(f"select {accounted} from ingest.position"))


class TestByHand:
    def test_all_assets_are_drained_up_to_now(self, make_bench: Make) -> None:
        bench = make_bench([TEMPERATURE, PRICE], RUN_IDLE_SECONDS="3600")
        price = bench.streams[1]
        bench.produce(temperatures(25))
        bench.produce(prices(40), price)
        result = bench.by_hand()
        assert result.success
        assert (bench.rows(), bench.rows(price)) == (25, 40)
        found = bench.run_tags(result.run_id)
        assert found["ingest/ended/temperature"] == found["ingest/ended/price"] == "caught-up"
        assert (found["ingest/rows/temperature"], found["ingest/rows/price"]) == ("25", "40")
        assert ledger_adds_up(bench)

    def test_what_comes_after_its_start_is_the_next_runs(self, make_bench: Make) -> None:
        class ProducesBeforeTheDrain(ChangedClients):
            """A run releases its pooled sessions when it knows the ends, just before the drain."""

            drains = 0

            def release_idle(self) -> None:
                self.drains += 1
                if self.drains == 1:
                    bench.produce(temperatures(10, partitions=1))
                super().release_idle()

        environ = {"RUN_IDLE_SECONDS": "3600", "BATCH_SIZE": "10", "BATCH_TIMEOUT": "30"}
        bench = make_bench(partitions=1, clients=ProducesBeforeTheDrain, **environ)
        bench.produce(temperatures(10, partitions=1))
        assert bench.by_hand().success
        assert bench.rows() == 10
        assert bench.by_hand().success
        assert bench.rows() == 20

    def test_partitions_of_a_running_drain_are_left_to_it(self, make_bench: Make) -> None:
        bench = make_bench(partitions=2)
        bench.produce(temperatures(4))
        bench.drain()
        bench.produce(temperatures(6))
        connection = bench.clients.writing_connection("0ddba11-and-more")
        owner = bench.clients.ledger_session(connection, bench.stream)
        try:
            owner.own([1], exact=True)
            result = bench.by_hand()
        finally:
            connection.close()
        assert result.success
        assert bench.positions() == {0: 5, 1: 2}
        assert metadata(result, bench.stream)["drained_by_others"] == "partition 1: run 0ddba11-"


class TestReports:
    def test_the_materialization_says_everything(self, make_bench: Make) -> None:
        bench = make_bench(BATCH_SIZE="10")
        bench.produce(with_broken(temperatures(50), every=25))
        result = bench.by_sensor()
        assert result.success
        found = metadata(result, bench.stream)
        assert found.pop("offsets") == [{"partition": 0, "from": 0, "to": 25}, {"partition": 1, "from": 0, "to": 25}]
        assert found.pop("dead_letter_reasons").startswith("- 2")
        assert {name: found.pop(name) for name in ("rows", "dead_letters", "skipped", "absent", "lag", "ended")} == {
            "rows": 48,
            "dead_letters": 2,
            "skipped": 0,
            "absent": 0,
            "lag": 0,
            "ended": "caught-up",
        }
        assert found.pop("batches") >= 5
        assert found.pop("dagster/row_count") == 48
        assert set(found) == {
            "rows_per_second",
            "mean_batch_rows",
            "seconds",
            "latency_p50_ms",
            "latency_p95_ms",
            "latency_p99_ms",
            "latency_max_ms",
            "decode_share",
            "database_share",
        }
        assert all(value > 0 for value in found.values())
        assert bench.outcome(result.run_id) == ("caught-up", "48")
        assert bench.run_tags(result.run_id)[tags.PID] == str(os.getpid())
        assert ledger_adds_up(bench)

    def test_a_run_that_finds_nothing_still_reports(self, make_bench: Make) -> None:
        bench = make_bench()
        found = metadata(bench.by_sensor(), bench.stream)
        assert (found["rows"], found["batches"], found["lag"], found["ended"]) == (0, 0, 0, "caught-up")

    def test_while_it_runs_it_observes(self, make_bench: Make) -> None:
        bench = make_bench(RUN_IDLE_SECONDS="3", REPORT_SECONDS="1")
        bench.produce(temperatures(5))
        result = bench.by_sensor()
        assert result.success
        observed = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
        assert len(observed) >= 2
        assert {each.asset_key for each in observed} == {dg.AssetKey("temperature")}
        assert observed[-1].metadata["rows"].value == 5
        assert "ended" not in observed[-1].metadata
        assert metadata(result, bench.stream)["ended"] == "caught-up"

    def test_the_first_run_reports_within_ten_seconds_of_its_first_commit(self, make_bench: Make) -> None:
        bench = make_bench(RUN_IDLE_SECONDS="15")
        bench.produce(temperatures(5))
        result = bench.by_sensor()
        assert result.success
        (stored_at,) = bench.query("select extract(epoch from min(ingested_at))::float from temperature")
        times = defaultdict[str, list[float]](list)
        for entry in bench.instance.all_logs(result.run_id):
            if entry.dagster_event is not None:
                times[entry.dagster_event.event_type_value].append(entry.timestamp - stored_at)
        ten_seconds = 10 / 15 * times["STEP_SUCCESS"][0]  # of a run that ends after 15 idle seconds
        assert times["ASSET_OBSERVATION"][0] < ten_seconds
        assert len([seconds for seconds in times["ASSET_CHECK_EVALUATION"] if seconds < ten_seconds]) == len(CHECKS)

    def test_or_materializes_where_that_is_wanted(self, make_bench: Make) -> None:
        bench = make_bench(RUN_IDLE_SECONDS="2", REPORT_SECONDS="1", REPORT_AS="materialization")
        result = bench.by_sensor()
        assert result.success
        assert result.get_asset_observation_events() == []
        assert len(result.get_asset_materialization_events()) >= 2

    def test_batches_are_logged_beside_the_event_log(self, make_bench: Make) -> None:
        bench = make_bench(BATCH_SIZE="5")
        bench.produce(temperatures(20))
        run_id = bench.drain()
        assert "position_offset" not in bench.said(run_id)


class TestEnds:
    def test_a_surplus_run_succeeds_and_says_who_drains(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(4))
        bench.drain()
        bench.produce(temperatures(4))
        connection = bench.clients.writing_connection("0ddba11-and-more")
        owner = bench.clients.ledger_session(connection, bench.stream)
        try:
            owner.own([0, 1], exact=True)
            result = bench.by_sensor()
        finally:
            connection.close()
        assert result.success
        assert bench.outcome(result.run_id) == ("surplus", "0")
        assert "shard 0/1 of temperature is drained by run 0ddba11-" in bench.said(result.run_id)
        assert result.get_asset_materialization_events() == []
        assert bench.rows() == 4

    def test_a_worker_with_other_code_or_settings_drains_nothing(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(4))
        current = tags.definition_of(bench.stream, bench.settings)
        result = bench.by_sensor(**{tags.DEFINITION: "0123456789ab"})
        assert result.success
        assert bench.outcome(result.run_id)[0] == "other-definition"
        reason = (
            f"for definition 0123456789ab of temperature, and the code or the settings of this worker make {current}"
        )
        assert reason in bench.said(result.run_id)
        assert result.get_asset_materialization_events() == []
        assert bench.by_sensor(**{tags.DEFINITION: current}).success
        assert bench.rows() == 4

    def test_runs_of_one_batch_follow_until_nothing_is_left(self, make_bench: Make) -> None:
        bench = make_bench(RUN_MAX_BATCHES="1", BATCH_SIZE="10", BATCH_TIMEOUT="30")
        bench.produce(with_broken(temperatures(40), 20))
        outcomes = []
        while (tick := bench.tick()).run_requests:
            outcomes.append(bench.outcome(bench.drain()))
        assert tick.skip_message == "caught up: lag 0"
        assert [ended for ended, _ in outcomes] == ["batches"] * 4
        assert sum(int(rows) for _, rows in outcomes) == bench.rows() == 38
        assert bench.query("select count(*) from ingest.dead_letter") == [2]

    def test_paused_before_it_reads(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(2))
        bench.drain()
        bench.produce(temperatures(2))
        bench.clients.ledger(bench.stream).pause("wait", "ann")
        assert bench.outcome(bench.drain())[0] == "paused"
        bench.clients.ledger(bench.stream).resume()
        bench.drain()
        assert bench.rows() == 4

    def test_a_missing_topic_fails_it_in_one_line(self, make_bench: Make) -> None:
        bench = make_bench(partitions=0)
        result = bench.by_sensor()
        assert not result.success
        assert bench.outcome(result.run_id) == ("failed:TopicMissing", "0")
        message = failure(result)
        assert bench.stream.topic in message
        assert "\n" not in message

    @pytest.mark.parametrize(("retry", "ended"), [("60", "caught-up"), ("0", "failed:KafkaUnavailable")])
    def test_a_server_that_does_not_answer_yet_is_asked_again(self, make_bench: Make, retry: str, ended: str) -> None:
        bench = make_bench(RETRY_SECONDS=retry)
        bench.produce(temperatures(3))
        faults = [KafkaUnavailable("not yet")]

        def late(answer: Callable[[str], object], group: str) -> object:
            if faults:
                raise faults.pop()
            return answer(group)

        bench.clients.changes["topic"]["group_offsets"] = late
        result = bench.by_sensor()
        assert result.success == (ended == "caught-up")
        assert bench.outcome(result.run_id)[0] == ended

    def test_fenced_it_ends_without_failure_and_writes_nothing_more(self, make_bench: Make) -> None:
        bench = make_bench(BATCH_SIZE="5")
        bench.produce(temperatures(5))
        bench.drain()
        bench.produce(temperatures(20))

        def own_and_lose(own: Callable[..., object], *arguments: object, **options: object) -> object:
            taken = own(*arguments, **options)
            bench.query("update ingest.position set run_id = 'another'")
            return taken

        bench.clients.changes["ledger_session"]["own"] = own_and_lose
        result = bench.by_sensor()
        assert result.success
        assert bench.outcome(result.run_id) == ("superseded", "0")
        assert bench.rows() == 5


class TestTablesThatDiffer:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("alter column temperature type real", "column temperature is real, declared as double precision"),
            ("drop column device_id", "column device_id text is missing, and rows without a value for it are there"),
            (
                "drop column ingested_at",
                "column ingested_at timestamp with time zone is missing. `ingest migrate` adds",
            ),
            ("add column site serial; alter table temperature alter site drop default", "column site is NOT NULL"),
        ],
    )
    def test_the_run_stops_before_it_reads(self, make_bench: Make, change: str, said: str) -> None:
        bench = make_bench()
        bench.produce(temperatures(4))
        bench.drain()
        before = bench.positions()
        bench.query(f"alter table temperature {change}")
        produce(bench.bootstrap_servers, bench.stream.topic, with_broken(temperatures(6), every=2))
        result = bench.by_sensor()
        assert not result.success
        assert bench.outcome(result.run_id) == ("failed:SchemaMismatch", "0")
        assert said in failure(result)
        assert ("ingest migrate" in failure(result)) == ("ingest migrate" in said), "advised only where it helps"
        assert bench.positions() == before
        assert bench.query("select count(*) from ingest.dead_letter") == [0]
        assert bench.rows() == 4

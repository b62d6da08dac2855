"""Asset checks and `ingest status`: what they say when all is well, and when it is not."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NoReturn

import dagster as dg
import pytest

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.core.roles import Role
from ingest_pipeline.operations.lateness import UNATTENDED_SECONDS
from ingest_pipeline.operations.status import status_of
from ingest_pipeline.orchestration.checks import (
    ACCOUNTED,
    AS_DECLARED,
    NO_LOSS,
    UP_TO_DATE,
    WITHIN_LIMIT,
    CheckResult,
    newest_evaluation,
)
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import Record, temperatures, with_broken
from ingest_pipeline_tests.orchestration.test_data_loss import delete_before, devices, refused
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]


def history(bench: Bench, name: str) -> Any:
    """The check's newest evaluation, if there is one."""
    key = dg.AssetCheckKey(dg.AssetKey("temperature"), name)
    return bench.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)


def newest(bench: Bench, name: str) -> tuple[bool, str]:
    """(passed, description) of the check's newest evaluation."""
    (record,) = history(bench, name)
    assert record.event is not None and record.event.dagster_event is not None
    evaluation = record.event.dagster_event.asset_check_evaluation_data
    return evaluation.passed, evaluation.description or ""


def status(bench: Bench, code: int) -> Any:
    return json.loads(ingest(bench, "status", "--json", code=code))


def test_a_run_that_went_well_is_green(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(7))
    bench.drain()
    assert newest(bench, ACCOUNTED) == (True, "7 offsets accounted for")
    assert newest(bench, NO_LOSS)[0]
    ((stream,),) = [status(bench, 0)]
    assert (stream["level"], stream["lag"], stream["messages"]) == ("healthy", 0, [])
    printed = ingest(bench, "status")
    assert printed.splitlines()[0] == "temperature healthy  lag 0"


def test_a_ledger_that_does_not_add_up_is_red(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce([*temperatures(3), *devices(3, 1)])
    bench.drain()
    bench.query("alter table ingest.position drop constraint accounted_for")
    bench.query('update ingest.position set "rows" = "rows" - 1 where kafka_partition = 1')
    bench.drain()
    passed, message = newest(bench, ACCOUNTED)
    assert not passed
    assert "partition 1, incarnation 1: 1 offsets unaccounted for" in message
    (stream,) = status(bench, 1)
    assert stream["level"] == "degraded"
    assert "do not add up" in stream["messages"][0]


def test_a_dead_letter_that_somebody_deleted_is_red(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(3))
    bench.produce([temperatures(1)[0]._replace(value=b"?")])
    bench.drain()
    assert status(bench, 1)[0]["open_letters"] == 1
    bench.query("delete from ingest.dead_letter")
    bench.drain()
    assert "1 dead letters counted, 0 kept" in newest(bench, ACCOUNTED)[1]


def test_what_was_red_in_a_run_ends_red(make_bench: Make) -> None:
    """Dagster keeps one result for each check and run."""
    bench = make_bench(partitions=1, RUN_IDLE_SECONDS="100", REPORT_SECONDS="1")
    bench.produce(with_broken(devices(0, 10), 10))
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(bench.by_sensor)
        begun = "select to_regclass('ingest.position')"
        wait_for("the drain", lambda: bench.query(begun) != [None] and bench.positions() == {0: 10})
        wait_for("an evaluation", lambda: history(bench, ACCOUNTED))
        bench.query("create table kept as select * from ingest.dead_letter")
        bench.query("delete from ingest.dead_letter")
        wait_for("red", lambda: not newest(bench, ACCOUNTED)[0])
        bench.query("insert into ingest.dead_letter overriding system value select * from kept")
        bench.clients.ledger(bench.stream).pause("it is enough", "ann")
        assert run.result(180).success
    passed, message = newest(bench, ACCOUNTED)
    assert (passed, message.split(": ")[0]) == (False, "earlier in this run")
    assert bench.query("select bool_and(accounted) from ingest.accounting") == [True]


def test_a_loss_is_red_until_it_is_accepted(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 5))
    bench.drain()
    bench.produce(devices(5, 5))
    delete_before(kafka_server, bench.stream.topic, 8)
    refused(bench)
    assert newest(bench, NO_LOSS) == (False, refused(bench))
    assert not bench.by_sensor().success
    assert newest(bench, NO_LOSS)[0] is False
    (stream,) = status(bench, 2)
    assert stream["level"] == "stopped"
    assert "To go on: ingest accept-loss temperature" in stream["messages"][0]
    ingest(bench, "accept-loss", "temperature", "--yes")
    bench.drain()
    assert newest(bench, NO_LOSS)[0]
    assert newest(bench, ACCOUNTED) == (True, "10 offsets accounted for")


def test_the_sensor_says_it_once_and_again_behind_a_newer_materialization(
    make_bench: Make, kafka_server: RealKafka
) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 5))
    bench.drain()
    bench.produce(devices(5, 5))
    delete_before(kafka_server, bench.stream.topic, 8)
    key = dg.AssetCheckKey(dg.AssetKey("temperature"), NO_LOSS)

    def count() -> int:
        return len(bench.instance.event_log_storage.get_asset_check_execution_history(key, limit=50))

    before = count()
    refused(bench)
    refused(bench)
    assert count() == before + 1
    bench.instance.report_runless_asset_event(dg.AssetMaterialization("temperature"))
    refused(bench)
    refused(bench)
    assert count() == before + 2


def old(records: list[Record]) -> list[Record]:
    return [record._replace(age_seconds=2.0 * UNATTENDED_SECONDS) for record in records]


def test_records_without_a_live_run_are_reported(make_bench: Make) -> None:
    """A stream that has been quiet and just woke up is not suspected."""
    an_hour_ago = "update ingest.position set updated_at = updated_at - interval '1 hour'"
    bench = make_bench()
    bench.produce(old(temperatures(4)))
    bench.drain()
    bench.query(an_hour_ago)
    bench.produce(old(temperatures(6)))
    assert status_of(bench.context).messages == [
        "no run drains, and 6 records wait, some for more than 60 s: is temperature_sensor switched on, and Dagster's"
        " daemon up? Its last tick says why it launches none"
    ]
    status(bench, 2)
    ledger = bench.clients.ledger(bench.stream)
    with closing(bench.clients.writing_connection("some-run")) as connection:
        session = bench.clients.ledger_session(connection, bench.stream)
        assert session.own([0, 1], exact=True) == {}
        assert status_of(bench.context).messages == []
    ledger.pause("index build", "ann")
    (message,) = status_of(bench.context).messages
    assert message.startswith("paused: index build (ann)")
    ledger.resume()
    bench.drain()
    bench.query(an_hour_ago)
    bench.produce(temperatures(8))
    ((stream,),) = [status(bench, 0)]
    assert (stream["lag"], stream["messages"]) == (8, [])


def test_records_of_a_stream_without_a_run_are_reported(make_bench: Make) -> None:
    bench = make_bench()
    assert status_of(bench.context).messages == []
    bench.produce(old(temperatures(3)))
    (message,) = status_of(bench.context).messages
    assert message.startswith("no run drains, and 3 records wait")
    found = late(bench)
    assert found is not None
    assert (found.description, found.grave) == (f"lag 3; {message}", True)


def test_records_behind_a_failed_run_are_reported_until_a_run_goes_well(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(4))
    ledger = bench.clients.ledger(bench.stream)
    ledger.note_failure("the disk burns", stops=True)
    (message,) = status(bench, 2)[0]["messages"]
    found = late(bench)
    assert found is not None
    assert (found.description, found.grave) == (f"lag 4; {message}", True)
    bench.drain()
    assert late(bench) is None


def test_what_cannot_be_evaluated_does_not_pass(make_bench: Make) -> None:
    bench = make_bench(
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9", DATABASE_URL="postgresql://x@127.0.0.1:9/x", RETRY_SECONDS="0"
    )
    assert not bench.by_sensor().success
    for name in (ACCOUNTED, NO_LOSS, WITHIN_LIMIT, UP_TO_DATE, AS_DECLARED):
        passed, message = newest(bench, name)
        assert not passed
        assert message.startswith("unknown: ")
    (stream,) = status(bench, 3)
    assert stream["level"] == "unknown"


def test_the_checks_can_be_run_by_hand(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(3))
    result = bench.by_hand()
    assert result.success
    found = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert found == dict.fromkeys((ACCOUNTED, NO_LOSS, WITHIN_LIMIT, UP_TO_DATE, AS_DECLARED), True)


def test_open_dead_letters_are_reported_with_their_reasons(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce([*temperatures(20), *(record._replace(value=b"?") for record in temperatures(2))])
    bench.drain()
    passed, message = newest(bench, WITHIN_LIMIT)
    assert not passed
    assert message.startswith("2 open dead letters: 2x ")
    (found,) = [check for check in checked_by_hand(bench) if check.check_name == WITHIN_LIMIT]
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert status(bench, 1)[0]["messages"] == [message]


BROKEN, GOOD = temperatures(1)[0]._replace(value=b"?"), temperatures(1)[0]


@pytest.mark.parametrize(
    ("records", "few", "letters"),
    [
        ([BROKEN], "the only record was refused", "1 open dead letter"),
        ([BROKEN] * 99, "20 of the last 20 records were refused", "99 open dead letters"),
        ([GOOD] * 50 + [BROKEN] * 11, "11 of the last 20 records were refused", "11 open dead letters"),
    ],
)
def test_if_most_of_the_last_records_are_refused_it_is_red(
    make_bench: Make, records: list[Record], few: str, letters: str
) -> None:
    bench = make_bench(partitions=1)
    bench.produce(records)
    bench.drain()
    passed, message = newest(bench, WITHIN_LIMIT)
    assert not passed
    assert message.startswith(f"{few}. {letters}: ")
    (found,) = [check for check in checked_by_hand(bench) if check.check_name == WITHIN_LIMIT]
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert status(bench, 1)[0]["messages"] == [message]
    bench.produce([GOOD] * 20)
    bench.drain()
    assert newest(bench, WITHIN_LIMIT)[1].startswith(f"{letters}: ")


def test_acknowledged_letters_do_not_degrade_a_stream_for_ever(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce([*temperatures(20), BROKEN])
    bench.drain()
    before = "ingest dead-letters list temperature"
    assert before in status(bench, 1)[0]["messages"][0]
    ingest(bench, "dead-letters", "acknowledge", "temperature")
    assert "Acknowledged. The stream is healthy again at " in status(bench, 1)[0]["messages"][0]
    bench.query("update ingest.dead_letter set failed_at = now() - interval '1 day'")
    (stream,) = status(bench, 0)
    assert (stream["level"], stream["open_letters"]) == ("healthy", 1)
    assert ". Acknowledged 20" in stream["messages"][0]
    bench.drain()
    assert newest(bench, WITHIN_LIMIT) == (True, stream["messages"][0])
    bench.produce([BROKEN])
    bench.drain()
    assert before in status(bench, 1)[0]["messages"][0]


def test_a_run_that_stops_at_the_limit_is_red_and_stays_so_by_hand(make_bench: Make) -> None:
    bench = make_bench(DEAD_LETTER_MAX_CONSECUTIVE="3")
    bench.produce([record._replace(value=b"?") for record in temperatures(30)])
    assert not bench.by_sensor().success
    passed, message = newest(bench, WITHIN_LIMIT)
    assert not passed
    assert "in a row" in message or "of the last" in message
    (found,) = [check for check in checked_by_hand(bench) if check.check_name == WITHIN_LIMIT]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    (stream,) = status(bench, 2)
    assert found.description == stream["messages"][0]
    assert found.description.endswith(message)


def test_so_is_one_launched_by_hand_until_one_goes_well(make_bench: Make) -> None:
    bench = make_bench(DEAD_LETTER_MAX_CONSECUTIVE="3")
    bench.produce([record._replace(value=b"?") for record in temperatures(30)])
    assert not bench.by_hand().success

    def reached() -> bool:
        (check,) = [check for check in checked_by_hand(bench) if check.check_name == WITHIN_LIMIT]
        return check.severity == dg.AssetCheckSeverity.ERROR and "in a row were refused" in str(check.description)

    assert reached()
    bench.clients.ledger(bench.stream).allow_letters(100)
    assert not reached(), "an operator has acted"
    bench.drain()
    assert not reached()


def checked_by_hand(bench: Bench) -> list[dg.AssetCheckEvaluation]:
    """What the Execute button finds."""
    (checks,) = bench.definitions.asset_checks or []
    assert isinstance(checks, dg.AssetChecksDefinition)
    job = dg.Definitions(
        assets=bench.definitions.assets,
        asset_checks=[checks],
        jobs=[dg.define_asset_job("execute", selection=dg.AssetSelection.checks(checks))],
    ).resolve_job_def("execute")
    return list(job.execute_in_process(instance=bench.instance).get_asset_check_evaluations())


def test_a_planned_check_without_a_result_blocks_no_other(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(3))
    bench.drain()
    job = bench.definitions.resolve_implicit_global_asset_job_def()
    bench.instance.create_run_for_job(job)
    (record,) = history(bench, NO_LOSS)
    assert record.status.value == "PLANNED"
    evaluation = newest_evaluation(bench.instance, dg.AssetKey("temperature"), NO_LOSS)
    assert evaluation is not None and evaluation.passed
    assert bench.tick().skip_message == "caught up: lag 0"


def late(bench: Bench) -> CheckResult | None:
    """What the check up_to_date says, unless it passes."""
    result = bench.check_results()[UP_TO_DATE]
    return None if result.passed else result


def test_rows_that_stay_away_are_red(make_bench: Make) -> None:
    bench = make_bench(MAX_DELAY_SECONDS="1")
    bench.produce(temperatures(3))
    bench.drain()
    assert newest(bench, UP_TO_DATE) == (True, "lag 0; no record waits for more than 1 s")
    bench.produce(temperatures(3, first=3))
    found = wait_for("red", lambda: late(bench))
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert found.description.startswith("lag 3; the table is ")


def test_records_that_wait_for_their_table_s_first_row_are_red(make_bench: Make) -> None:
    bench = make_bench(MAX_DELAY_SECONDS="1")
    bench.produce(temperatures(3))
    found = wait_for("red", lambda: late(bench))
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert found.description.startswith("lag 3; 3 records wait, some for more than the 1 s that are allowed")
    assert found.metadata == {"lag": 3}


def test_that_age_not_being_known_does_not_pass(make_bench: Make) -> None:
    def no_answer(*_: object) -> NoReturn:
        raise KafkaUnavailable("no answer")

    bench = make_bench()
    bench.produce(temperatures(3))
    bench.clients.changes["topic"]["offsets_at"] = no_answer
    found = late(bench)
    assert found is not None
    assert found.description == "unknown: no answer"


@pytest.mark.role(Role.OWNER)
def test_a_table_that_was_there_before_and_differs_is_red_from_the_first_run_on(make_bench: Make) -> None:
    bench = make_bench()
    assert bench.check_results()[AS_DECLARED].description == "the stream has not begun"
    bench.query("create table temperature (temperature text)")
    bench.produce(temperatures(3))
    assert not bench.by_sensor().success
    passed, message = newest(bench, AS_DECLARED)
    assert not passed
    assert "column temperature is text, declared as double precision" in message
    (stream,) = status(bench, 2)
    assert "column temperature is text" in stream["messages"][0], "the ledger is there, though the table is wrong"


def test_a_changed_table_is_red(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(3))
    bench.drain()
    assert newest(bench, AS_DECLARED) == (True, "8 columns as declared")
    bench.query("alter table temperature alter temperature type text")
    assert not bench.by_sensor().success
    passed, message = newest(bench, AS_DECLARED)
    assert not passed
    assert "column temperature is text, declared as double precision" in message


def test_a_deleted_topic_is_reported_as_a_loss(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench()
    bench.produce(temperatures(8))
    bench.drain()
    kafka_server.delete_topic(bench.stream.topic)
    gone = "the topic of its 2 positions is gone"
    message = wait_for("the deletion to be known", lambda: told if gone in (told := bench.tick().skip_message) else "")
    assert "ingest accept-loss temperature" in message
    assert newest(bench, NO_LOSS) == (False, message)
    assert bench.check_results()[NO_LOSS].description == message
    assert gone in ingest(bench, "check", code=1)
    kafka_server.create_topic(bench.stream.topic, 2)
    ingest(bench, "accept-loss", "temperature", "--yes")
    bench.drain()
    assert newest(bench, NO_LOSS)[0]

"""The faults of a night: status, healthz, alert and checks agree about each, and are right again after it.

The last lines of the output are the table: what each of them said, and after how many seconds.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline.orchestration.checks import AS_DECLARED, NO_LOSS, UP_TO_DATE, WITHIN_LIMIT
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.night import ALERT_SECONDS, HEALTH, TEMPERATURE, Night
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken
from ingest_pipeline_tests.orchestration.test_data_loss import delete_before, recreate
from ingest_pipeline_tests.orchestration.webhook import serving_webhook
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.long, pytest.mark.timeout(400)]
OUTAGE_SECONDS = 25
REACH_SECONDS = 15
"""An alert follows its time, and the news of a recovery follows the recovery, within this time."""


@pytest.fixture(scope="module")
def night(own_kafka: RealKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("night")
    with EmbeddedPostgres(folder / "postgres") as postgres, serving_webhook() as webhook:
        query(postgres.url, "create role app login password 'app' ")
        query(postgres.url, "create database app owner app")
        for name in ("temperature", "price"):
            own_kafka.create_topic(name, 2)
        host = postgres.url.split("@")[1].split("/")[0]
        environ = {
            "KAFKA_BOOTSTRAP_SERVERS": own_kafka.bootstrap_servers,
            "DATABASE_URL": f"postgresql://app:app@{host}/app",
            "ALERT_WEBHOOK_URL": webhook.address,
            "DEAD_LETTER_MAX_CONSECUTIVE": "3",
            "RUN_IDLE_SECONDS": "3",
            "BATCH_TIMEOUT": "0.2",
        }
        bench = Night(folder, own_kafka, postgres, webhook, environ)
        bench.produce()
        bench.start_dagster()
        wait_for("the first rows", lambda: bench.sql("select to_regclass('temperature')") != [None], every=0.5)
        bench.wait_until_well()
        with bench.serving_metrics():
            yield bench
        bench.stop_dagster()
        print("", *bench.table, sep="\n")


@dataclass(frozen=True)
class Fault:
    """A fault of which somebody has to hear.

    Attributes:
        words: are in the status, in healthz, in the alert and in the check.
        check: does not pass in the UI. None: Dagster evaluates no check meanwhile.
    """

    name: str
    strike: Callable[[Night], None]
    heal: Callable[[Night], None]
    level: str
    words: str
    check: str | None = None


def stop_postgres(night: Night) -> None:
    night.postgres.stop()


def poison(night: Night) -> None:
    night.produce(with_broken(temperatures(8), 1))


def let_poison_pass(night: Night) -> None:
    night.ingest("dead-letters", "allow", "temperature", "--count", "8")
    wait_for("the letters", lambda: night.sql("select count(*) from ingest.dead_letter") == [8], every=0.5)
    night.ingest("dead-letters", "discard", "temperature", "--yes")


def recreate_topic(night: Night) -> None:
    recreate(night.kafka, TEMPERATURE.topic, 2)
    night.produce(temperatures(792))


def delete_records(night: Night) -> None:
    night.ingest("pause", "temperature")
    (begin,) = night.sql("select next_offset from ingest.position where stream = 'temperature' and kafka_partition = 0")
    night.produce()
    delete_before(night.kafka, TEMPERATURE.topic, begin + 3)
    night.ingest("resume", "temperature")


def accept_loss(night: Night) -> None:
    night.ingest("accept-loss", "temperature", "--yes")


def drop_column(night: Night) -> None:
    night.sql("alter table temperature drop column device_id")
    night.produce()


def add_column(night: Night) -> None:
    night.sql("alter table temperature add column device_id text not null default ''")
    night.sql("alter table temperature alter column device_id drop default")


def revoke(night: Night) -> None:
    night.sql("revoke insert on temperature from app")
    night.produce()


def grant(night: Night) -> None:
    night.sql("grant insert on temperature to app")


def switch_off(night: Night) -> None:
    night.dev.switch_sensor("temperature", on=False)
    time.sleep(8)  # a tick that has begun may still launch a run, and the run ends idle
    night.produce()


def switch_on(night: Night) -> None:
    night.dev.switch_sensor("temperature", on=True)


def kill_daemon(night: Night) -> None:
    wait_for("the run's end", lambda: night.owner_pid() is None, every=0.5)
    night.kill_daemon()
    night.produce()


def restart_dagster(night: Night) -> None:
    night.stop_dagster()
    night.start_dagster()


def exhaust(night: Night) -> None:
    night.sql("alter role app connection limit 1")


def relieve(night: Night) -> None:
    night.sql("alter role app connection limit -1")


FAULTS = [
    Fault("Kafka down", lambda n: n.kafka.stop(), lambda n: n.kafka.start(), "unknown", "does not answer", UP_TO_DATE),
    Fault(
        "PostgreSQL down",
        stop_postgres,
        lambda n: n.postgres.start(),
        "unknown",
        "PostgreSQL is not reachable",
        UP_TO_DATE,
    ),
    Fault("max_connections", exhaust, relieve, "unknown", "53300"),
    Fault("poison", poison, let_poison_pass, "stopped", "in a row were refused", WITHIN_LIMIT),
    Fault("records deleted", delete_records, accept_loss, "stopped", "were deleted before they were read", NO_LOSS),
    Fault("topic re-created", recreate_topic, accept_loss, "stopped", "another one of the same name", NO_LOSS),
    Fault("column dropped", drop_column, add_column, "stopped", "device_id", AS_DECLARED),
    Fault("right revoked", revoke, grant, "stopped", "permission denied for table temperature", UP_TO_DATE),
    Fault("sensor off", switch_off, switch_on, "stopped", "no run drains"),
    Fault("daemon dead", kill_daemon, restart_dagster, "stopped", "no run drains"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_everybody_says_the_same(night: Night, fault: Fault) -> None:
    night.wait_until_well()
    before = len(night.webhook.texts)
    fault.strike(night)
    struck = time.monotonic()
    try:
        alert = wait_for("the alert", lambda: night.alert(before), ALERT_SECONDS + 2 * REACH_SECONDS, every=0.1)
        alert_seconds = time.monotonic() - struck
        look = night.look()
        if fault.check is not None:
            wait_for("the check in the UI", lambda: fault.check in night.shown_checks(), REACH_SECONDS, every=0.5)
        shown = night.shown_checks()
    finally:
        fault.heal(night)
    right = night.recovery(before + 1)
    first = look.status["messages"][0]
    checks = "; ".join(f"{name}: {text}" for name, text in shown.items())
    again = ", ".join(f"{who} {seconds:.0f} s" for who, seconds in right.items())
    told = f"after {alert_seconds:.0f} s: {alert!r}"
    night.table.append(f"| {fault.name} | {look.level}: {first} | {look.health[0]} | {told} | {checks} | {again} |")
    assert (look.level, look.served["level"], look.state) == (fault.level,) * 3
    assert look.health[0] == HEALTH[fault.level]
    what, _, _ = alert.splitlines()
    assert f"{'are' if ', price' in what else 'is'} {fault.level}: " in what
    for words in (first, look.served["messages"][0], look.health[1], what):
        assert fault.words in words
    assert any(fault.words in words for words in look.checks.values())
    if fault.check is not None:
        assert fault.words in shown[fault.check]
    if fault.name == "topic re-created":
        assert look.status["lag"] is None
    if fault.name == "sensor off":
        assert "the sensor is switched off in Dagster" in what
    assert alert_seconds <= ALERT_SECONDS + REACH_SECONDS
    assert right["alert"] - right["status"] <= REACH_SECONDS
    assert abs(right["healthz"] - right["status"]) <= REACH_SECONDS


def kill_run(night: Night) -> None:
    night.produce()
    pid = wait_for("a run", night.owner_pid, every=0.1)
    os.kill(pid, signal.SIGKILL)
    night.produce()


def restart_with_two_shards(night: Night) -> None:
    night.stop_dagster()
    night.start_dagster(TEMPERATURE_PARALLELISM="2")
    night.produce()


def kafka_away_for_a_while(night: Night) -> None:
    night.kafka.stop()
    time.sleep(OUTAGE_SECONDS)
    night.kafka.start()
    night.produce()


def postgres_away_for_a_while(night: Night) -> None:
    night.postgres.stop()
    time.sleep(OUTAGE_SECONDS)
    night.postgres.start()
    night.produce()


SHORT = [kill_run, restart_with_two_shards, kafka_away_for_a_while, postgres_away_for_a_while]


@pytest.mark.parametrize("strike", SHORT)
def test_what_heals_soon_gives_no_alert(night: Night, strike: Callable[[Night], None]) -> None:
    night.wait_until_well()
    before, rows = len(night.webhook.texts), night.rows()
    strike(night)
    struck = time.monotonic()
    wait_for("the rows", lambda: night.rows() >= rows + 10, 60, every=0.2)
    night.wait_until_well()
    night.table.append(f"| {strike.__name__} | healthy after {time.monotonic() - struck:.0f} s | | no alert | | |")
    time.sleep(REACH_SECONDS)
    assert night.webhook.texts[before:] == []
    assert night.look().health == (200, "ok\n")

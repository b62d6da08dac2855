"""The demo's Dagster UI in a real browser: what people see and do.

The tests read rendered pages. `make ui-test` saves pictures in docs/images. The tests of prices come late, when a run
of prices has ended.
"""

import re

import pytest
from playwright.sync_api import expect

from ingest_pipeline.orchestration.checks import CHECKS, WITHIN_LIMIT
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.ui.pages import Ui, line_pixels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PLOTS = ["batches", "dead_letters", "lag", "latency_p50_ms", "latency_p99_ms", "rows", "rows_per_second"]
CONFIG = """ops:
  redrive_dead_letters_op:
    config:
      stream: temperature
      dry_run: false
"""
MENDED = b'{"device_id": "dev-mended", "temperature": 20.5, "timestamp": "2026-01-01T00:00:00Z"}'


def test_the_asset_page_says_what_the_stream_is(ui: Ui) -> None:
    ui.open("/assets/temperature")
    for text in ("One reading of one device's thermometer, in degrees Celsius.", "public.temperature", "Postgres"):
        expect(ui.text(text).first).to_be_visible()
    for column in ("device_id", "temperature", "event_time"):
        expect(ui.row(column)).to_contain_text("non-nullable")
    expect(ui.page.get_by_role("link", name="temperature_sensor")).to_be_visible()
    expect(ui.page.get_by_role("link", name="drain_temperature")).to_be_visible()


def test_the_topics_page_says_what_the_sensor_saw_there(ui: Ui) -> None:
    ui.open_until("/assets/kafka/temperature", ui.row("lag"))
    expect(ui.text("Kafka topic temperature.")).to_be_visible()
    expect(ui.row("blocked_records")).to_contain_text("0")
    for partition in range(4):
        ends = ui.row("partitions").get_by_role("row", name=re.compile(rf"^{partition} ")).get_by_role("cell")
        assert int(ends.nth(3).inner_text()) > 0, "its end"


def test_numbers_are_plotted(ui: Ui) -> None:
    ui.open("/assets/temperature")
    ui.button("Plots").click()
    for name in PLOTS:
        expect(ui.text(name).first).to_be_visible()
    charts = ui.page.locator("canvas")
    expect(charts.first).to_be_visible()
    assert charts.count() >= len(PLOTS)
    for chart in charts.all():
        wait_for("a line in every plot", lambda chart=chart: line_pixels(chart) > 50)
    ui.picture("asset", element=ui.text("dead_letters").first)


def test_checks_are_green_and_one_warns_of_dead_letters_by_reason(ui: Ui, database_url: str) -> None:
    refused = "select count(*) from ingest.dead_letter where stream = 'temperature'"
    wait_for("a few dead letters", lambda: query(database_url, refused)[0] >= 3)
    some = re.compile(r"[1-9]\d* open dead letters: [1-9]\d*x .+; [1-9]\d*x .+")
    ui.open_until(f"/assets/temperature?view=checks&checkDetail={WITHIN_LIMIT}", ui.text(some))
    for name in CHECKS:
        expect(ui.text(name).first).to_be_visible()
    expect(ui.text("Succeeded")).to_have_count(len(CHECKS) - 1)
    expect(ui.text("Failed").first).to_be_visible()  # Dagster's word for a warning, too
    ui.picture("checks")


def test_the_stream_that_readme_adds_has_rows_in_its_own_table(ui: Ui, database_url: str) -> None:
    ui.open("/assets/humidity")
    for text in ("One reading of one hygrometer, in percent.", "public.humidity", "humidity_sensor"):
        expect(ui.text(text).first).to_be_visible()
    expect(ui.row("humidity")).to_contain_text("double precision")
    ui.button("Plots").click()
    expect(ui.text("rows").first).to_be_visible()
    assert query(database_url, "select count(*) from humidity")[0] > 0
    ui.open("/locations/ingest_pipeline.definitions/jobs/drain_humidity/runs")
    expect(ui.page.get_by_role("link", name="humidity_sensor", exact=True).first).to_be_visible()


def test_terminate_leaves_a_clean_run_and_another_goes_on(ui: Ui, database_url: str) -> None:
    terminated = ui.run_of("drain_temperature")
    expect(ui.text("temperature_sensor").first).to_be_visible()
    ui.button("Terminate").click()
    ui.page.get_by_role("dialog").get_by_role("button", name="Terminate 1 run").click()
    expect(ui.text("Canceled").first).to_be_visible()
    ui.leave()
    owner = "select left(run_id, 8) from ingest.position where stream = 'temperature'"
    wait_for("the next run", lambda: terminated not in query(database_url, owner), every=0.5)
    ui.open_until("/assets/temperature", ui.row("ended"))
    expect(ui.row("ended")).to_contain_text("terminated")
    rows = query(database_url, "select count(*) from temperature")[0]
    assert ui.run_of("drain_temperature") != terminated
    expect(ui.text("temperature_sensor").first).to_be_visible()
    wait_for("more rows", lambda: query(database_url, "select count(*) from temperature")[0] > rows)
    assert query(database_url, "select count(*) from ingest.accounting where not accounted") == [0]


def test_redrive_from_the_launchpad_stores_what_can_be_stored_now(ui: Ui, database_url: str) -> None:
    """A letter with complete bytes stands for a letter that new code can decode."""
    first = "select min(id) from ingest.dead_letter where stream = 'temperature' and status = 'open'"
    (letter,) = wait_for("a dead letter", lambda: [letter_id for letter_id in query(database_url, first) if letter_id])
    query(database_url, "update ingest.dead_letter set value = %s where id = %s", MENDED, letter)
    ui.open("/locations/ingest_pipeline.definitions/jobs/redrive_dead_letters/playground")
    ui.text(re.compile("dry_run")).first.click()
    ui.page.keyboard.press("ControlOrMeta+a")
    ui.page.keyboard.insert_text(CONFIG)
    expect(ui.text("No errors")).to_be_visible()
    expect(ui.button("Launch Run")).to_be_enabled()
    ui.button("Launch Run").hover()
    ui.page.wait_for_timeout(1_000)  # the editor's tooltip, which covers lines, fades
    ui.picture("launchpad")
    ui.button("Launch Run").click()
    ui.page.wait_for_url("**/runs/*")
    run = ui.leave()
    status = "select status from ingest.dead_letter where id = %s"
    wait_for("the redrive", lambda: query(database_url, status, letter) == ["redriven"], every=0.5)
    ui.open(run)
    expect(ui.text("Success").first).to_be_visible()
    expect(ui.page.get_by_role("row", name="stored 1", exact=True)).to_be_visible()
    assert query(database_url, "select temperature from temperature where device_id = 'dev-mended'") == [20.5]


def test_a_run_that_its_sensor_launched_has_materialized_prices(ui: Ui) -> None:
    ui.open_until("/assets/price", ui.row("ended"))
    expect(ui.row("ended")).to_contain_text("age")
    assert int(ui.row("rows").get_by_role("cell").last.inner_text()) > 0
    ui.open_until("/locations/ingest_pipeline.definitions/jobs/drain_price/runs", ui.text("Success"))
    launched = ui.page.get_by_role("link", name="price_sensor", exact=True)
    expect(launched.nth(1), "the run that ended and its successor").to_be_visible()


def test_the_run_over_time_is_a_picture_in_its_place(ui: Ui) -> None:
    ui.open_until("/assets/price", ui.row("over_time"))
    drawn = ui.row("over_time").get_by_alt_text("throughput and latency")
    expect(drawn).to_be_visible()
    wait_for("the picture", lambda: drawn.evaluate("image => image.complete && image.naturalWidth > 0"))
    box = drawn.bounding_box()
    assert box is not None and box["width"] > 200 and box["height"] > 100
    ui.picture("over-time", element=ui.row("offsets"))


def test_prices_are_checked_too(ui: Ui) -> None:
    ui.open_until("/assets/price?view=checks", ui.text("Succeeded"))
    for name in CHECKS:
        expect(ui.text(name).first).to_be_visible()
    expect(ui.text("Succeeded")).to_have_count(len(CHECKS) - 1)

"""What simulated devices say: the same for the same seed, and broken exactly where it is counted as broken."""

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused, SettingsError
from ingest_pipeline.demo.devices import BROKEN, SHAPES, Devices, Event, source_names
from ingest_pipeline.demo.simulate import Plan
from ingest_pipeline.streams import STREAMS

START_US = 1_767_225_600_123_456
DECODERS = {stream.topic: JsonDecoder(stream).decode for stream in STREAMS}
TOPICS = sorted(SHAPES)


def events(topic: str, count: int, **options: int) -> list[Event]:
    fleet = Devices(topic, **options)
    return [fleet.event(START_US + 5_000 * number) for number in range(count)]


def test_every_shipped_stream_can_be_simulated() -> None:
    assert sorted(DECODERS) == TOPICS


@pytest.mark.parametrize("topic", TOPICS)
def test_the_same_seed_gives_the_same_events(topic: str) -> None:
    assert events(topic, 3000, seed=7) == events(topic, 3000, seed=7)
    assert events(topic, 3000, seed=7) != events(topic, 3000, seed=8)


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("every", [1, 10, 1000])
def test_one_event_in_so_many_is_broken(topic: str, every: int) -> None:
    sent = events(topic, 5000, broken_every=every)
    for block in range(0, 5000, every):
        assert sum(event.broken is not None for event in sent[block : block + every]) == 1


@pytest.mark.parametrize("topic", TOPICS)
def test_nothing_is_broken_when_nothing_shall_be(topic: str) -> None:
    assert all(event.broken is None and event.value is not None for event in events(topic, 3000, broken_every=0))


@pytest.mark.parametrize("topic", TOPICS)
def test_all_ways_of_being_broken_take_turns(topic: str) -> None:
    ways = [event.broken for event in events(topic, len(BROKEN) * 3, broken_every=1)]
    for turn in range(3):
        assert set(ways[turn * len(BROKEN) : (turn + 1) * len(BROKEN)]) == set(BROKEN)


@pytest.mark.parametrize("topic", TOPICS)
def test_the_decoder_refuses_what_is_broken_and_takes_the_rest(topic: str) -> None:
    accepted, refused = 0, set()
    for event in events(topic, 2000, broken_every=20):
        assert event.value is not None
        try:
            DECODERS[topic](event.value)
        except RecordRefused:
            refused.add(event.broken)
        else:
            assert event.broken is None
            accepted += 1
    assert refused == set(BROKEN)
    assert accepted == 2000 - 2000 // 20


@pytest.mark.parametrize("topic", TOPICS)
def test_tombstones_are_not_counted_as_broken(topic: str) -> None:
    sent = events(topic, 2000, broken_every=0, tombstone_every=100)
    tombstones = [event for event in sent if event.value is None]
    assert len(tombstones) == 20
    assert all(event.broken is None and event.key for event in tombstones)


@pytest.mark.parametrize("topic", TOPICS)
def test_every_event_has_a_time_of_its_own(topic: str) -> None:
    fleet = Devices(topic, broken_every=0)
    values = [fleet.event(START_US).value for _ in range(1000)]
    times = [DECODERS[topic](value)[2] for value in values if value is not None]
    assert times == sorted(set(times)) and len(times) == 1000


def test_the_events_look_as_documented() -> None:
    temperature, price = events("temperature", 1, seed=1)[0], events("price", 1, seed=1)[0]
    assert temperature.value is not None and price.value is not None
    told = msgspec.json.decode(temperature.value)
    assert told["device_id"].encode() == temperature.key
    assert told["device_id"].startswith("dev-") and isinstance(told["temperature"], float)
    assert told["timestamp"] == "2026-01-01T00:00:00.123456+00:00"
    told = msgspec.json.decode(price.value)
    assert told["symbol"].encode() == price.key and told["symbol"].isupper() and told["price"] > 0
    assert told["timestamp"] == "2026-01-01T00:00:00.123456Z"


def test_sources_differ() -> None:
    assert len(set(source_names("temperature", 1000, 1))) == 1000
    assert len(set(source_names("price", 1, 17_576))) == 17_576


def test_a_plan_knows_how_many_records_it_sends() -> None:
    assert Plan(rate=200, seconds=2.5).total == 500
    assert Plan(rate=0, seconds=2.5).total is None
    assert Plan(rate=0, records=10).total == 10
    assert Plan().total is None


@pytest.mark.parametrize("topics", [(), ("humidity",), ("price", "humidity")])
def test_other_topics_are_refused_in_one_line(topics: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"only these topics can be simulated: temperature, price \(") as refused:
        Plan(topics=topics)
    assert "\n" not in str(refused.value)

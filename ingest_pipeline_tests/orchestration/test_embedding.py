"""The example in docs/embedding.md, as it stands there."""

import re
from pathlib import Path
from typing import Any

import dagster as dg

ROOT = Path(__file__).parents[2]


def test_the_example_is_a_code_location() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/embedding.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {"__name__": "embedding_example"}
    exec(compile(example, "docs/embedding.md", "exec"), found)
    repository = found["defs"].get_repository_def()
    keys = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert keys == {"shop/orders", "shop/kafka/orders", "revenue"}
    assert [sensor.name for sensor in repository.sensor_defs] == ["orders_sensor"]
    revenue = repository.asset_graph.get(dg.AssetKey("revenue"))
    assert revenue.parent_keys == {dg.AssetKey(["shop", "orders"])}

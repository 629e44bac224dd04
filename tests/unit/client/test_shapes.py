"""The client's shapes are the server's components: same keys, and left out only where the server may leave them out."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from orchestrator.client import shapes
from serve_app.app import describe

SCHEMAS: dict[str, dict[str, Any]] = describe()["components"]["schemas"]
SHAPES = {name: shape for name, shape in vars(shapes).items() if typing.is_typeddict(shape)}


@pytest.mark.parametrize("name", sorted(SHAPES.keys() & SCHEMAS.keys()))
def test_a_shape_has_the_keys_of_its_component(name: str) -> None:
    properties, required = SCHEMAS[name]["properties"], SCHEMAS[name].get("required", ())
    shape = SHAPES[name]
    assert set(shape.__annotations__) == set(properties)
    assert set(required) <= shape.__required_keys__
    #: what has a default other than null is always in an answer
    assert not [key for key in shape.__optional_keys__ if properties[key].get("default") is not None]


def test_there_are_shapes_to_check() -> None:
    assert len([name for name in SHAPES if name.startswith("Dags") and name in SCHEMAS]) > 10

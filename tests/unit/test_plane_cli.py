"""The commands on control planes against a scripted HTTP server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app import plane_commands
from serve_app.surfaces.dags.plane_models import ANSWERS, DagsPlane
from tests.cli_stub import Json, Stub, call, stub

__all__ = ["call", "stub"]

STANDS_BY: Json = ANSWERS[DagsPlane]
IN_CHARGE = STANDS_BY | {"in_charge": True, "holder": STANDS_BY["plane"]}
NOBODY = STANDS_BY | {"holder": None, "holder_url": None}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_commands, "_LOOK_S", 0.0)


def test_a_takeover_waits_until_it_has_happened_unless_told_otherwise(call: Any, stub: Stub) -> None:
    stub.on("POST", "/plane/takeover", STANDS_BY)
    stub.on("GET", "/plane", STANDS_BY, IN_CHARGE)
    assert json.loads(call("takeover", "--no-wait", "--json")[1]) == STANDS_BY
    assert json.loads(call("takeover", "--json")[1]) == IN_CHARGE


@pytest.mark.parametrize(("view", "holder"), [(STANDS_BY, STANDS_BY["holder"]), (NOBODY, "nobody")])
def test_a_takeover_that_does_not_happen_tells_who_is_in_charge(
    call: Any, stub: Stub, monkeypatch: pytest.MonkeyPatch, view: Json, holder: str
) -> None:
    monkeypatch.setattr(plane_commands, "_PATIENCE_S", 0.0)
    stub.on("POST", "/plane/takeover", view)
    stub.on("GET", "/plane", view)
    status, _, err = call("takeover")
    assert status == 1
    assert f"{holder} is in charge" in err

"""The commands on events and assets, and what others show of causes, against a scripted HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.cli_stub import DAG, RUN, Stub, call, stub

__all__ = ["call", "stub"]

Call = Callable[..., tuple[int, str, str]]
ASSET = {
    "asset": "s3://lake/sales",
    "producers": ["load"],
    "consumers": ["report"],
    "updates": 2,
    "updated_at": "2026-01-02T03:04:05Z",
    "last_updates": [{"run_id": "run_9", "task": "t", "attempt": 1, "dag_id": "load", "at": "2026-01-02T03:04:05Z"}],
}
CAUSES = [
    {"kind": "dag", "name": "u", "run_id": "run_7", "attempt": 1},
    {"kind": "asset", "name": "s3://x", "run_id": "run_8", "task": "t", "attempt": 2},
    {"kind": "event", "name": "order.paid", "event_id": "o-7"},
]


def test_an_event_is_told_with_its_params(stub: Stub, call: Call) -> None:
    told = {
        "name": "order.paid",
        "id": "o-7",
        "duplicate": False,
        "runs": [{"dag_id": "ship", "run_id": "run_1", "state": "queued"}],
    }
    stub.on("POST", "/events", told, {**told, "duplicate": True}, {**told, "runs": []}, told)
    status, out, _ = call("tell", "order.paid", "o-7", "--param", "n=1")
    assert (status, out.splitlines()[-1].split()) == (0, ["ship", "run_1", "queued"])
    assert stub.asked[0][2] == {"name": "order.paid", "id": "o-7", "payload": {"n": 1}}
    assert "nothing started now" in call("tell", "order.paid", "o-7")[2]
    assert "no DAG has on_event order.paid" in call("tell", "order.paid", "o-8")[2]
    assert json.loads(call("tell", "order.paid", "o-7", "--json")[1]) == told


def test_assets_are_listed_and_shown(stub: Stub, call: Call) -> None:
    stub.on("GET", "/assets", {"items": [ASSET]})
    stub.on("GET", "/assets/s3%3A%2F%2Flake%2Fsales", ASSET)
    assert call("assets", "list")[1].splitlines()[-1].split()[::3] == ["s3://lake/sales", "load"]
    shown = call("assets", "show", "s3://lake/sales")[1]
    assert "consumed by  report" in shown
    assert shown.splitlines()[-1].split()[1:] == ["load", "run_9", "t", "1"]
    assert json.loads(call("assets", "show", "s3://lake/sales", "--json")[1]) == ASSET


def test_a_dag_shows_what_it_waits_for_and_a_run_why_it_started(stub: Stub, call: Call) -> None:
    awaits: list[dict[str, Any]] = [
        {"kind": "dag", "name": "u", "known": True, "met": True, "by": CAUSES[:1]},
        {"kind": "dag", "name": "v", "known": True, "met": False, "by": []},
        {"kind": "dag", "name": "w", "known": False, "met": False, "by": []},
    ]
    stub.on("GET", "/dags/d", {**DAG, "awaits": awaits})
    shown = " ".join(call("dags", "show", "d")[1].split())
    assert "dag u met dag u by run_7 dag v not yet dag w nobody has it" in shown
    stub.on("GET", "/runs/run_1", {**RUN, "triggered_by": CAUSES})
    shown = " ".join(call("runs", "show", "run_1")[1].split())
    assert "because of dag u by run_7, asset s3://x by run_8/t, event order.paid o-7" in shown

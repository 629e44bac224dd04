"""The commands on pools against a scripted HTTP server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.surfaces.dags.pool_models import ANSWERS, DagsPoolView
from tests.cli_stub import Json, Stub, call, stub

__all__ = ["call", "stub"]


POOL: Json = ANSWERS[DagsPoolView] | {
    "num_cpus": 0.5,
    "memory_bytes": 4 * 2**30,
    "resources": {"tpu": 4.0},
    "waiting": 7,
    "waiting_s": 2.0,
}


def test_pools_are_listed_defined_and_forgotten(call: Any, stub: Stub) -> None:
    stub.on("GET", "/pools", {"items": [POOL]})
    stub.on("PUT", "/pools/gpu", POOL)
    stub.on("DELETE", "/pools/gpu", {"name": "gpu", "deleted": True})
    words = call("pools", "list")[1].split()
    assert words[words.index("shape") + 1 :][:10] == ["gpu", "0", "4", "2", "2", "1", "1", "0", "7", "0.5"]
    assert {"GPU,", "4096", "tier=a"} <= set(words)
    assert json.loads(call("pools", "list", "--json")[1]) == {"items": [POOL]}
    shape = ("--num-cpus", "0.5", "--num-gpus", "1", "--memory", "4G", "--resource", "tpu=4", "--label", "tier=a")
    assert call("pools", "set", "gpu", "--max", "4", *shape)[0] == 0
    kept = {"name", "defined", "wanted", "workers", "starting", "busy", "draining", "waiting", "waiting_s"}
    assert stub.asked[-1] == ("PUT", "/pools/gpu", {key: value for key, value in POOL.items() if key not in kept})
    assert call("pools", "rm", "gpu")[1] == "gpu deleted\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ("--memory", "much"),
        ("--resource", "tpu"),
        ("--resource", "x=y"),
        ("--label", "=a"),
        ("--resource", "x=nan"),
        ("--num-cpus", "inf"),
        ("--idle-timeout", "inf"),
    ],
)
def test_a_pool_that_nobody_can_read_is_refused_before_it_is_sent(
    call: Any, stub: Stub, wrong: tuple[str, str]
) -> None:
    status, _, err = call("pools", "set", "gpu", "--max", "1", *wrong)
    assert (status, stub.asked) == (1, [])
    assert wrong[0] in err

"""examples/subdags.py, as far as it can be seen without a server."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from orchestrator import dags_in
from orchestrator.calls import callees_of, last_tasks

EXAMPLE = Path(__file__).parents[2] / "examples" / "subdags.py"


def test_it_uses_the_same_tasks_as_a_group_and_as_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    made = {each.dag_id: each.definition() for each in dags_in(importlib.import_module(EXAMPLE.stem))}
    group = ["sales_of.fetch", "sales_of.check", "sales_of.total"]
    assert [task.id for task in made["region_sales"].tasks] == group
    assert [task.id for task in made["subdags"].tasks] == [*group, "south", "east", "tell"]
    assert callees_of(made["subdags"]) == ("region_sales",)
    assert last_tasks(made["region_sales"]) == ("sales_of.total",)

"""examples/rules_and_cleanup.py, driven through the machine of a run with its own functions and no worker."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator import Skip, dags_in
from orchestrator.binding import arguments, facts
from tests.builders import Story, a_value

EXAMPLE = Path(__file__).parents[2] / "examples" / "rules_and_cleanup.py"


def play(module: Any, **params: Any) -> Story:
    """A run of the example to its end."""
    (dag,) = dags_in(module)
    definition = dag.definition()
    specs = {spec.id: spec for spec in definition.tasks}
    story = Story(*definition.tasks).start()
    values: dict[str, Any] = {}
    while story.ready:
        name = story.ready[0]
        function = getattr(module, name).function
        inputs = {where: values.get(producer) for where, producer in specs[name].inputs.items()}
        told = facts("run_1", definition.dag_id, None)
        args, kwargs = arguments(function, specs[name].params, inputs, params, told, None)
        story.begin(name)
        try:
            values[name] = function(*args, **kwargs)
        except Skip as skip:
            story.do(story.report(name, "skipped", error=str(skip)))
        else:
            story.do(story.report(name, "ok", value=a_value(values[name])))
    return story


@pytest.mark.parametrize(
    ("rows", "taken", "left"),
    [(3, "one_by_one", "in_bulk"), (500, "in_bulk", "one_by_one"), (0, "one_by_one", "in_bulk")],
)
def test_it_goes_one_way_and_leaves_nothing_behind(
    rows: int, taken: str, left: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    module = importlib.import_module(EXAMPLE.stem)
    story = play(module, rows=rows)
    assert story.run.state == "succeeded"
    assert (story.states[taken], story.states[left]) == ("succeeded", "skipped")
    assert story.states["warn"] == ("skipped" if rows else "succeeded")
    workspace = msgspec.json.decode(story.run.values[story.run.position("make")].inline)
    assert not Path(workspace).exists()
    assert f"{rows} rows, {taken.replace('_', ' ')}" in capsys.readouterr().out

"""examples/map_and_reduce.py, driven through the machine of a run with its own functions and no worker."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator import context, dags_in, mapped
from orchestrator.binding import arguments, facts
from orchestrator.messages import Value
from tests.builders import Story, a_value

EXAMPLE = Path(__file__).parents[2] / "examples" / "map_and_reduce.py"


class Place:
    """As much of a TaskContext as the example asks for."""

    def __init__(self, map_id: str, map_index: int | None) -> None:
        self.map_id, self.map_index = map_id, map_index


def test_it_tolerates_the_station_that_sends_nonsense(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    module: Any = importlib.import_module(EXAMPLE.stem)
    (dag,) = dags_in(module)
    story = Story(*dag.definition().tasks).start()
    while story.ready:
        _run_one(module, story, story.ready[0])
    assert (story.run.state, story.states["warmest[4]"]) == ("succeeded", "failed")
    told = capsys.readouterr().out
    assert "number 3 of warmest" in told
    assert "19 of 20 stations: S00" in told


def _run_one(module: Any, story: Story, name: str) -> None:
    spec = story.run.compiled.specs[story.run.position(name)]
    values: dict[str, Value] = dict.fromkeys(spec.inputs, Value())
    part = mapped.part_of(story.run, story.run.position(name), values)
    inputs = {path: msgspec.json.decode(value.inline) for path, value in values.items()}
    for path, listed in part.lists.items() if part else ():
        inputs[path] = [msgspec.json.decode(value.inline) for value in listed]
    function = getattr(module, mapped.map_of(name)).function
    args, kwargs = arguments(function, spec.params, inputs, {}, facts("run_1", "d", None), None)
    story.begin(name)
    try:
        with context.using(Place(mapped.map_of(name), mapped.index_in(name))):  # type: ignore[arg-type]  # part of one
            returned = function(*args, **kwargs)
    except TypeError as error:
        story.do(story.report(name, "error", error=str(error)))
    else:
        story.do(story.report(name, "ok", value=a_value(returned)))

"""examples/rules_and_cleanup.py, driven through the machine of a run with its own functions and no worker."""

from __future__ import annotations

import importlib
from pathlib import Path

import msgspec
import pytest

from tests.example_play import play

EXAMPLE = Path(__file__).parents[2] / "examples" / "rules_and_cleanup.py"


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

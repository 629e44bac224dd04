"""examples/saga.py, driven through the machine of a run with its own functions and no worker."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.example_play import play
from tests.invariants import check_history

EXAMPLE = Path(__file__).parents[2] / "examples" / "saga.py"


@pytest.mark.parametrize(
    ("rooms", "state", "told"),
    [
        (0, "failed", ["payment 4711: 120 refunded", "seat 12A given back"]),
        (1, "succeeded", []),
    ],
)
def test_it_undoes_the_last_step_first_when_there_is_no_room(
    rooms: int, state: str, told: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    story = play(importlib.import_module(EXAMPLE.stem), rooms=rooms)
    assert story.run.state == state
    assert capsys.readouterr().out.splitlines() == ["seat 12A reserved", "120 paid for seat 12A", *told]
    check_history(story.events, lambda version: story.compiled(version).definition)

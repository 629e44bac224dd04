"""What the command line prints, on a terminal and into a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from serve_app import screen

RUN = "run_0355S2lypLI8rVGmJfUiZK"
TITLES = ("run", "dag", "type", "state", "window", "created", "attempts")
ROW = (RUN, "sales_of_the_day", "scheduled", "success", "2025-10-01 .. 2025-10-01", "2026-11-28T13:44:01.757Z", 1)


def test_in_a_pipe_a_row_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    screen.print_table(TITLES, [ROW])
    screen.print_facts({"tasks": "task " * 60})
    title, row, facts = capsys.readouterr().out.splitlines()
    assert title.split() == list(TITLES)
    assert all(str(cell) in row for cell in ROW)
    assert facts.split() == ["tasks", *["task"] * 60]


def terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> io.StringIO:
    """What is printed on one with lines of that many characters."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(screen, "Console", lambda **_: console)
    return out


@pytest.mark.parametrize("width", [80, 100])
def test_on_a_narrow_terminal_an_id_stays_in_one_piece(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal(monkeypatch, width)
    screen.print_table(TITLES, [ROW])
    assert RUN in out.getvalue()
    assert max(len(line) for line in out.getvalue().splitlines()) <= width


def test_on_a_narrow_terminal_nothing_of_a_long_name_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal(monkeypatch, 80)
    name = "abcdefghij" * 20
    screen.print_table(("task", "state"), [(name, "done")])
    assert "".join(line.split(" ")[0] for line in out.getvalue().splitlines()[1:]) == name

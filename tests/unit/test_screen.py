"""What the command line prints, on a terminal and into a pipe."""

from __future__ import annotations

import os
import re
import sys

import pytest
import typer

from orchestrator.errors import Conflict
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


def lines(text: str) -> list[str]:
    """Without what makes them bold and coloured."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a terminal of 80 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("narrow")
def test_on_a_narrow_terminal_an_id_stays_in_one_piece(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_table(TITLES, [ROW])
    told = lines(capsys.readouterr().out)
    assert len(told) > 2
    assert any(RUN in line for line in told)
    assert max(len(line) for line in told) <= 80


@pytest.mark.usefixtures("narrow")
def test_on_a_narrow_terminal_nothing_of_a_long_name_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    name = "abcdefghij" * 20
    screen.print_table(("task", "state"), [(name, "done")])
    assert "".join(line.split(" ")[0] for line in lines(capsys.readouterr().out)[1:]) == name


def speak(end: Exception) -> None:
    """A command that prints something, and ends so."""
    with screen.readers():
        print("a line")
        raise end


@pytest.mark.parametrize("end", [typer.Exit(3), Conflict("no")])
def test_a_command_whose_reader_has_seen_enough_ends_as_it_would_have(
    monkeypatch: pytest.MonkeyPatch, end: Exception
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        with pytest.raises(type(end)) as told:
            speak(end)
    assert told.value is end

"""What the command line prints: tables, progress and errors for people, JSON for programs.

Answers go to standard output, everything else (progress, hints, errors) to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

Json = dict[str, Any]

#: characters of a line that is not on a terminal
_PIPE_WIDTH = 100_000
_COLOURS = {
    "success": "green",
    "Succeeded": "green",
    "Online": "green",
    "finished": "green",
    "done": "green",
    "completed": "green",
    "complete": "green",
    "active": "green",
    "idle": "green",
    "running": "cyan",
    "Running": "cyan",
    "Busy": "cyan",
    "in_progress": "cyan",
    "busy": "cyan",
    "retrying": "yellow",
    "paused": "yellow",
    "stopping": "yellow",
    "cancelled": "yellow",
    "Cancelled": "yellow",
    "Warning": "yellow",
    "awaiting_retry": "yellow",
    "waiting_for_human": "yellow",
    "skipped": "yellow",
    "draining": "yellow",
    "failed": "red",
    "Failed": "red",
    "TimedOut": "red",
    "Offline": "red",
    "Error": "red",
    "error": "red",
    "quarantined": "red",
    "blocked": "red",
    "crashed": "red",
    "upstream_failed": "red",
    "lost": "red",
}


class _Output(Console):
    """Standard output. That nobody reads it any more is for the command to end with: rich would, with 1."""

    def on_broken_pipe(self) -> None:
        """As Console, which calls it with the error at hand."""
        raise


def say(line: str) -> None:
    """One line of progress for whoever watches."""
    print(line, file=sys.stderr, flush=True)


def print_error(message: str, hint: str | None = None) -> None:
    """What went wrong and what to do next."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[red]error:[/red] {escape(message)}")
    if hint:
        console.print(f"[dim]hint:[/dim] {escape(hint)}")


def print_json(answer: Any) -> None:
    """`answer` as one JSON document."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def print_json_line(answer: Any) -> None:
    """`answer` as one line of JSON, for streams."""
    print(json.dumps(answer, ensure_ascii=False), flush=True)


def print_line(text: str) -> None:
    """A line of an answer, with states in their colours."""
    _Output(soft_wrap=True, highlight=False).print(text)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A plain table; cells with a state's word get its colour. Ids are not folded, where a third of a line has room."""
    console, table = _wide_console(), Table(box=None, pad_edge=False, header_style="bold")
    cells = [[shown(cell) for cell in row] for row in rows]
    for n, title in enumerate(titles):
        longest = max((len(row[n]) for row in cells), default=0)
        whole = (n == 0 or title == "run") and longest <= console.width // 3
        table.add_column(title, overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values, one pair a line; empty values are left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            table.add_row(name, shown(value))
    _wide_console().print(table)


def _wide_console() -> Console:
    """Standard output; no line is folded where nobody looks at it, so that programs find a row in a line."""
    console = _Output(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def cause(told: Mapping[str, Any]) -> str:
    """Why a run started by itself, in a few words."""
    match told["kind"]:
        case "event":
            return f"event {told['name']} {told['event_id']}"
        case "asset":
            return f"asset {told['name']} by {told['run_id']}/{told['task']}"
        case _:
            return f"dag {told['name']} by {told['run_id']}"


def shown(value: Any) -> str:
    """`value` as markup."""
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    colour = _COLOURS.get(text)
    return f"[{colour}]{text}[/{colour}]" if colour else escape(text)


@contextmanager
def progress(title: str, total: int, *, quiet: bool) -> Iterator[Bar]:
    """A live bar on a terminal; nothing elsewhere or when `quiet`."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as live:
        yield Bar(live, title, total)


@contextmanager
def readers() -> Iterator[None]:
    """What is printed inside is out after it; a reader that has seen enough, such as `head`, is no error.

    What else ends the block ends it in any case.
    """
    end: BaseException = typer.Exit(0)
    try:
        try:
            yield
        except BrokenPipeError:
            raise
        except BaseException as told:
            end = told
            raise
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # typer would end with 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise end from None


class Bar:
    """One line of progress."""

    def __init__(self, live: Progress, title: str, total: int) -> None:
        self._live = live
        self._task = live.add_task(escape(title), total=total, note="")

    def show(self, done: int, note: str = "", total: int | None = None) -> None:
        """`done` of the total are over; a total that is given is the new one."""
        self._live.update(self._task, completed=done, note=note, total=total)

"""Command lines that texts show, held against the programs that they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from serve_app.cli import app


def check(line: str) -> None:
    """`orchestrator …` has these commands, options and arguments; raises click's UsageError when it has not."""
    command: Any = typer.main.get_command(app)
    name, *arguments = shlex.split(line, comments=True)
    context = command.make_context(name, arguments)
    while hasattr(command, "commands"):
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, arguments, parent=context)
    assert not context.args, line


def in_shell(script: str, program: str) -> Iterator[str]:
    """The command lines of `program` in a shell script, without what leads to them and what follows."""
    for command in re.split(r";|&&|\|\||\n", script.replace("\\\n", " ")):
        words = shlex.split(command, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):  # variables for this command alone
            words.pop(0)
        if words and words[0].rpartition("/")[2] == program:
            yield shlex.join([program, *words[1:]])

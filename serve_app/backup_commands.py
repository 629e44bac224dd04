"""The commands that copy a data directory, and bring it back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from serve_app import screen
from serve_app.session import Session, command, group

backups = group("Backups of the data directory.")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the backup.")]


@command(backups, "backup")
def backup_command(session: Session, folder: Folder) -> None:
    """Copy the data directory to a new folder, journal and all, while the server goes on."""
    from serve_app import backup

    with _ended_in_order():
        told = backup.backup(session.home, folder)
    if not told["journal"]:
        screen.say("the journal is not in the data directory: back its own server up, and before this")
    session.show({"backup": str(folder), **told}, ("backup", "made_at", "files", "size_bytes"))


@command(backups, "restore")
def restore_command(session: Session, folder: Folder) -> None:
    """Make a new data directory what it was at a backup. Then start it with `orchestrator up`."""
    from serve_app import backup

    with _ended_in_order():
        told = backup.restore(session.home, folder)
    session.show({"data_dir": str(session.home), **told}, ("data_dir", "made_at", "files", "size_bytes"))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends what is in the block like an error: half a copy goes, and the journal rewrites its file again."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)

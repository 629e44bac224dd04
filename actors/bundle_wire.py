"""What a worker and the process that runs a bundle's code for it say to each other.

    worker ── Order ─────────▶ process          once; READY when it can take tasks
           ── TASK exchange ─▶                  one attempt (messages.Exchange), numbered by its batch
           ── CANCEL number ─▶                  and the reason; of another number than the one that runs: ignored
           ◀─ NOTE owner, note ── ANSWER ──▶    a checkpoint and the like, passed on to the run's owner
           ◀─ COPY value, file ── ANSWER ──▶    what another node has, into an open file of the process
           ◀─ ALIVE ──                          the attempt gave a sign of life
           ◀─ REPORT settled ──                 how it ended (messages.Settled)

One socket pair, messages of bytes whose first one is the kind. Either end goes away when the other does.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from actors.process import SECRETS

TASK, CANCEL, ANSWER = b"T", b"C", b"A"
READY, NOTE, COPY, ALIVE, REPORT = b"Y", b"N", b"V", b"L", b"R"
#: folders of installed packages
_SITES = ("site-packages", "dist-packages")


class Order(msgspec.Struct, frozen=True):
    """What the process needs to begin."""

    #: process id of the worker
    parent: int
    #: as `Settings.to_dict`
    settings: dict[str, Any]
    #: of the node that both are on
    node: str
    #: the bundle's own folder, then the operator's
    folders: tuple[str, ...]
    #: with what its requirements ask for; "" = they ask for nothing
    packages: str = ""
    http_allow: str = ""


class NoteToPass(msgspec.Struct, frozen=True, array_like=True):
    """A note for the owner of a run."""

    owner: str
    #: messages.Note
    note: str


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What came of a note or a copy."""

    #: the note is durable, the file holds the value
    done: bool
    #: why the owner, or the file, could not be reached; None = it was
    unreachable: str | None = None


def send_file(line: Connection, descriptor: int) -> None:
    """The open file goes along with what was sent last. Raises OSError."""
    with socket.fromfd(line.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        socket.send_fds(raw, [b"F"], [descriptor])


def receive_file(line: Connection) -> int:
    """Descriptor of the open file that came along with the last message. Raises EOFError, OSError."""
    with socket.fromfd(line.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        _, descriptors, _, _ = socket.recv_fds(raw, 1, 1)
    if not descriptors:
        raise EOFError
    return descriptors[0]


def environment() -> dict[str, str]:
    """Of a process of a bundle: it finds our own packages, wherever they are, and Ray, but no secrets of ours."""
    hidden = SECRETS - {"RAY_AUTH_TOKEN"}
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    ours = Path(__file__).resolve().parents[1]
    told = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if ours.name not in _SITES and str(ours) not in told:
        told.append(str(ours))
    return {**inherited, "PYTHONPATH": os.pathsep.join(told)}


def extend_path(packages: str, folders: Iterable[str]) -> None:
    """In such a process: packages of the bundle win over those that are installed here, its own modules over none."""
    if packages:
        sites = (at for at, entry in enumerate(sys.path) if Path(entry).name in _SITES)
        sys.path.insert(next(sites, len(sys.path)), packages)
    sys.path += [folder for folder in folders if folder not in sys.path]

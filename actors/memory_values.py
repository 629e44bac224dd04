"""Values that are kept in memory: files of a directory that is memory (tmpfs), one per node and artifact directory.

    /dev/shm/orchestrator-<id>/<run id>/<task>.<attempt>          never synced, gone with the machine

They take at most `limit_bytes`, of which half of what the file system holds is the default; a value for which there is
no room is stored instead. Values of a run are removed when it has ended, but for what it came to while a run that
called it goes on, as that is the value of the call (`calls.py`): by a thread of one worker of the node, which
asks the journal every SWEEP_S and lives only as long as there are any. A worker that starts looks, too, so that what
a crash left behind goes with the next `up`; `down` removes the directory, and `up` those whose data directory is gone.
Who has mapped a file that is removed keeps what it has.

Everybody on a machine may write to /dev/shm, and values are unpickled: a directory that somebody else has made under
that name is neither written to nor read from.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Broken, Unavailable

if TYPE_CHECKING:
    from orchestrator.ports import Journal
    from orchestrator.rows import RunRow

#: where memory is a directory, on Linux
SHM = Path("/dev/shm")
_PREFIX = "orchestrator-"
#: names the artifact directory that it belongs to
_MARK = ".of"
#: held by the process that sweeps
_LOCK = ".sweeps"
#: seconds between looks for runs that have ended
SWEEP_S = 5.0

_log = logging.getLogger(__name__)

#: of run ids, those that have ended, with the name of the one value that is still needed; "" = none. Raises Unavailable
Ended = Callable[[list[str]], Mapping[str, str]]
#: run -> (version of its row, name of what it came to)
Results = dict[str, tuple[int, str]]


class MemoryValues:
    """The directory of one artifact directory, on this node. `ended` is asked for runs whose values can go."""

    def __init__(self, root: Path, limit_bytes: int = 0, ended: Ended | None = None, shm: Path = SHM) -> None:
        self.folder = folder_of(root, shm)
        self._root = root
        self._limit_bytes = limit_bytes
        self._ended = ended
        self._sweeper: threading.Thread | None = None

    def make_room(self) -> int:
        """The directory exists; bytes that may be written to it. Raises OSError."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if not is_ours(self.folder):
            _log.warning("%s belongs to somebody else: values are stored instead", self.folder)
            raise PermissionError(str(self.folder))
        mark = self.folder / _MARK
        if not mark.exists():
            mark.write_text(str(self._root))
        space = os.statvfs(self.folder)
        limit = self._limit_bytes or space.f_blocks * space.f_frsize // 2
        return max(0, min(limit - _used(self.folder), space.f_bavail * space.f_frsize))

    def written(self) -> None:
        """There may be values: somebody looks after them."""
        if self._ended is None or (self._sweeper is not None and self._sweeper.is_alive()):
            return
        if self.runs():
            self._sweeper = threading.Thread(target=self._sweep_on, args=(self._ended,), name="values", daemon=True)
            self._sweeper.start()

    def runs(self) -> list[str]:
        """Runs that have values here."""
        try:
            return [entry.name for entry in os.scandir(self.folder) if entry.is_dir()]
        except FileNotFoundError:
            return []

    def remove(self, run_id: str, needed: str = "") -> None:
        """Its values are gone, but for the one of that name."""
        if not needed:
            shutil.rmtree(self.folder / run_id, ignore_errors=True)
            return
        with suppress(FileNotFoundError):  # somebody else was faster
            for file in os.scandir(self.folder / run_id):
                if file.name != needed:
                    os.unlink(file)

    def sweep(self, ended: Ended) -> None:
        """Values of runs that have ended are gone. Raises Unavailable."""
        if runs := self.runs():
            for run_id, needed in ended(runs).items():
                self.remove(run_id, needed)

    def _sweep_on(self, ended: Ended) -> None:
        try:
            with (self.folder / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # others wait here, in case this process dies
                while self.runs():
                    time.sleep(SWEEP_S)
                    try:
                        self.sweep(ended)
                    except Unavailable as unavailable:
                        _log.warning("values in memory are not looked after: %s", unavailable)
        except FileNotFoundError:
            return  # the whole directory was removed


def folder_of(root: Path, shm: Path = SHM) -> Path:
    """The directory in memory that goes with the artifact directory `root`."""
    return shm / f"{_PREFIX}{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}"


def is_ours(folder: Path) -> bool:
    """Is it there, and can nobody else have put anything into it?"""
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def supported(shm: Path = SHM) -> bool:
    """Is there a directory that is memory?"""
    return shm.is_dir() and os.access(shm, os.W_OK)


def clear(root: Path, shm: Path = SHM) -> None:
    """Nothing that goes with `root` is in memory; nor what goes with artifact directories that are gone."""
    shutil.rmtree(folder_of(root, shm), ignore_errors=True)
    tidy(shm)


def tidy(shm: Path = SHM) -> None:
    """What goes with data directories that are gone is not in memory any more."""
    for folder in shm.glob(f"{_PREFIX}*"):
        try:
            gone = folder.stat().st_uid == os.getuid() and not Path((folder / _MARK).read_text()).parent.exists()
        except OSError:
            continue
        if gone:
            shutil.rmtree(folder, ignore_errors=True)


def ended_in(journal_url: str) -> Ended:
    """Asks the journal. Runs that it does not know any more have ended, too."""
    results: Results = {}

    def ended(run_ids: list[str]) -> Mapping[str, str]:
        return asyncio.run(_ended(journal_url, run_ids, results))

    return ended


async def _ended(journal_url: str, run_ids: list[str], results: Results) -> Mapping[str, str]:
    from actors.journal import Journal

    journal = Journal(journal_url)
    try:
        found = {run_id: await needed_of(journal, run_id, results) for run_id in run_ids}
    finally:
        await journal.close()
    for gone in results.keys() - found.keys():
        del results[gone]
    return {run_id: name for run_id, name in found.items() if name is not None}


async def needed_of(journal: Journal, run_id: str, results: Results) -> str | None:
    """Of a run that has ended the value that whoever called it may still take; None = it goes on.

    It is "" when there is none. `results` remembers what is read from histories. Raises Unavailable.
    """
    from orchestrator.rows import TERMINAL

    row = await journal.summary(run_id)
    if row is None:
        return ""
    if row.state not in TERMINAL:
        return None
    if row.caller is None or not await _waits(journal, row.caller[0]):
        return ""
    version, name = results.get(run_id, (0, ""))
    if version != row.version:
        try:
            name = await _result(journal, row)
        except Broken:
            _log.exception("what run %s came to is not kept in memory", run_id)
            name = ""
        results[run_id] = row.version, name
    return name


async def _waits(journal: Journal, run_id: str) -> bool:
    """Does the run, or one that called it, go on?"""
    from orchestrator.rows import TERMINAL

    row = await journal.summary(run_id)
    while row is not None and row.state in TERMINAL and row.caller is not None:
        row = await journal.summary(row.caller[0])
    return row is not None and row.state not in TERMINAL


async def _result(journal: Journal, row: RunRow) -> str:
    """The name, in the run's folder, of the value that the run came to; "" = none of that folder."""
    from orchestrator import calls, codec

    definition = await journal.definition(row.tenant, row.dag_id, row.dag_version)
    if definition is None:
        return ""
    batches = [batch for history in await journal.load([row.run_id]) for batch in history.batches]
    events = (event for batch in batches for event in codec.decode_events(batch.events, batch.schema))
    artifact = calls.result_of(codec.decode_definition(definition), events).artifact or ""
    run_id, _, name = artifact.partition("/")
    return name if run_id == row.run_id else ""


def _used(folder: Path) -> int:
    """Bytes of all files."""
    total = 0
    for run in os.scandir(folder):
        try:
            total += sum(file.stat().st_size for file in os.scandir(run)) if run.is_dir() else 0
        except FileNotFoundError:
            continue
    return total

"""The files of plans, beneath one root that people and other programs also work in.

    docs/plans/<name>.md                          the plan; read, never written
    docs/plan-outputs/<name>/status.json          how far it is
    docs/plan-outputs/<name>/status.json.bak      a malformed one that was overwritten
    docs/plan-outputs/<name>/findings/1-1.md      what task 1.1 left behind; `1.1.md` is read too, and first

Methods block: call them in a thread. A file is written whole or not at all (beside its place, then renamed into
it), so that no reader ever sees half of it; of two writers the last one wins, and stamps tell who else wrote.
Names are checked before they become paths, and a link that leads out of its folder is treated as if it
were not there. What the operating system refuses (permissions, a full disk) raises Unavailable.
Source: contracts/instances.md, sections 2 and 6.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from orchestrator import plan_file, plan_status
from orchestrator.errors import Conflict, NotFound, Unavailable
from orchestrator.instance_views import FindingView, InstanceStatus, PlanView
from orchestrator.plan_file import PlanDocument, numeric_order
from orchestrator.plan_status import PlanStatus

PLANS = PurePosixPath("docs/plans")
OUTPUTS = PurePosixPath("docs/plan-outputs")

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DASHED_ID = re.compile(r"[0-9]+(?:-[0-9]+)+")
_DOTTED_ID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
#: what the system says of a path that leads nowhere
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FileStamp(NamedTuple):
    """Another one after each change of a file, unless two in one tick of its clock come to the same size."""

    inode: int
    size_bytes: int
    modified_ns: int


class Stamps(NamedTuple):
    """Of a plan's files; None = there is no such file."""

    plan: FileStamp | None
    status: FileStamp | None


class PlanStore:
    """The plans, statuses and findings beneath `root`."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))
        self._plans = self._root / PLANS
        self._outputs = self._root / OUTPUTS

    def plans(self) -> list[PlanView]:
        """Every `*.md` in the plans folder whose name can be asked for, by name."""
        return [self._view(name, found) for name, found in sorted(self._markdown(self._plans))]

    def plan(self, name: str) -> PlanView:
        """One plan file. Raises NotFound."""
        return self._view(name, self._known(name))

    def document(self, name: str) -> PlanDocument:
        """What is in the plan file. Raises NotFound."""
        data = self._read(self._plan(name), self._plans)
        if data is None:
            raise NotFound("plan", name)
        return plan_file.parse(data.decode("utf-8", "replace"), name)

    def status(self, name: str) -> PlanStatus:
        """What status.json says. Raises NotFound of kind `plan`, or `status` when it is absent or malformed."""
        self._known(name)
        found = self._status(name)
        if found is None:
            raise NotFound("status", name)
        return found

    def status_view(self, name: str) -> InstanceStatus:
        """What status.json says, for people, with descriptions as written in the plan. Raises as `status` does."""
        document = self.document(name)
        return plan_status.view(self.status(name), name, str(self._plan(name)), document)

    def write_status(self, name: str, status: PlanStatus) -> FileStamp:
        """status.json is `status`; the answer is the stamp it has now. A malformed one stays as `status.json.bak`."""
        path = self._status_path(name)
        before = self._read(path, path.parent)
        if before is not None and plan_status.read(before) is None:
            self._write(path.with_name(f"{path.name}.bak"), before)
        return self._write(path, plan_status.to_bytes(status))

    def findings(self, name: str) -> list[FindingView]:
        """What tasks left behind, by task id; of two spellings the dotted first. Raises NotFound of kind `plan`."""
        self._known(name)
        folder = self._findings(name)
        found = sorted(self._markdown(folder), key=lambda item: (numeric_order(_task_id(item[0])), "-" in item[0]))
        return [
            FindingView(_task_id(stem), str(folder / f"{stem}.md"), at.st_size, _modified(at)) for stem, at in found
        ]

    def finding(self, name: str, task_id: str) -> str:
        """The text of one finding. Raises NotFound of kind `plan` or `finding`."""
        self._known(name)
        folder = self._findings(name)
        for stem in _spellings(task_id):
            data = self._read(folder / f"{stem}.md", folder)
            if data is not None:
                return data.decode("utf-8", "replace")
        raise NotFound("finding", task_id)

    def write_finding(self, name: str, task_id: str, text: str) -> str:
        """The task's finding is `text`; the answer is its path beneath the root."""
        spellings = _spellings(task_id)
        if not spellings:
            raise NotFound("finding", task_id)
        path = self._findings(name) / f"{spellings[-1]}.md"
        self._write(path, text.encode("utf-8", "replace"))
        return path.relative_to(self._root).as_posix()

    def stamps(self, name: str) -> Stamps:
        """Of the files as they are now: take them before reading, and what is read is not older than they tell."""
        status = self._status_path(name)
        return Stamps(
            plan=_stamp(self._stat(self._plan(name), self._plans)),
            status=_stamp(self._stat(status, status.parent)),
        )

    # ── paths ──

    def _plan(self, name: str) -> Path:
        return self._plans / f"{_checked(name)}.md"

    def _output(self, name: str) -> Path:
        return self._outputs / _checked(name)

    def _status_path(self, name: str) -> Path:
        return self._output(name) / "status.json"

    def _findings(self, name: str) -> Path:
        return self._output(name) / "findings"

    def _known(self, name: str) -> os.stat_result:
        found = self._stat(self._plan(name), self._plans)
        if found is None:
            raise NotFound("plan", name)
        return found

    def _view(self, name: str, found: os.stat_result) -> PlanView:
        output = self._output(name)
        return PlanView(
            name=name,
            path=str(self._plan(name)),
            has_status=self._status(name) is not None,
            last_modified=_modified(found),
            output_dir=str(output) if self._real(output, output) else None,
        )

    def _status(self, name: str) -> PlanStatus | None:
        path = self._status_path(name)
        data = self._read(path, path.parent)
        return None if data is None else plan_status.read(data)

    # ── files ──

    def _real(self, path: Path, within: Path) -> Path | None:
        """Where `path` leads; None when it leads nowhere, or out of `within` or the root."""
        found = _asked(path, lambda: [Path(os.path.realpath(p, strict=True)) for p in (self._root, within, path)])
        if found is None:
            return None
        root, home, real = found
        return real if real.is_relative_to(home) and home.is_relative_to(root) else None

    def _stat(self, path: Path, within: Path) -> os.stat_result | None:
        """Of a regular file inside `within`; None when there is none."""
        real = self._real(path, within)
        found = None if real is None else _asked(path, partial(os.lstat, real))
        return found if found and stat.S_ISREG(found.st_mode) else None

    def _read(self, path: Path, within: Path) -> bytes | None:
        real = self._real(path, within)
        if real is None or self._stat(path, within) is None:
            return None
        return _asked(path, partial(_content, real))

    def _markdown(self, folder: Path) -> Iterator[tuple[str, os.stat_result]]:
        """Stems of the `*.md` files directly in `folder` that are names."""
        real = self._real(folder, folder)
        if real is None:
            return
        for entry in _asked(folder, partial(os.listdir, real)) or ():
            stem, suffix = os.path.splitext(entry)
            found = self._stat(folder / entry, folder) if suffix == ".md" and _is_name(stem) else None
            if found:
                yield stem, found

    def _write(self, path: Path, data: bytes) -> FileStamp:
        """`path` holds `data`: whole or not at all, also after a crash. Raises Conflict, Unavailable."""
        real, root = (Path(os.path.realpath(p)) for p in (path.parent, self._root))
        if not real.is_relative_to(root):
            raise Conflict(f"{path.parent} leads out of {self._root}")
        try:
            real.mkdir(parents=True, exist_ok=True)
            return _replace(real / path.name, data)
        except OSError as error:
            raise Unavailable(f"cannot write {path}: {error.strerror}") from None


def _replace(path: Path, data: bytes) -> FileStamp:
    fresh, descriptor = _beside(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            found = os.fstat(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return FileStamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _beside(path: Path) -> tuple[Path, int]:
    """A new file in the folder of `path`, open for writing, with the permissions that new files have here."""
    number = 0
    while True:
        fresh = path.with_name(f".{path.name}.{os.getpid()}-{number}.new")
        try:
            return fresh, os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:  # another thread's, another node's, or left by a crash
            number += 1


def _asked(path: Path, ask: Callable[[], T]) -> T | None:
    """What the system answers; None when `path` leads nowhere. Raises Unavailable for any other refusal."""
    try:
        return ask()
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise Unavailable(f"cannot read {path}: {error.strerror}") from None


def _content(path: Path) -> bytes:
    # neither a link nor a pipe that took the file's place since it was looked at
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        return file.read()


def _stamp(found: os.stat_result | None) -> FileStamp | None:
    return None if found is None else FileStamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _modified(found: os.stat_result) -> datetime:
    return _EPOCH + timedelta(microseconds=found.st_mtime_ns // 1000)


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and ".." not in text


def _checked(name: str) -> str:
    if not _is_name(name):
        raise NotFound("plan", name)
    return name


def _task_id(stem: str) -> str:
    return stem.replace("-", ".") if _DASHED_ID.fullmatch(stem) else stem


def _spellings(task_id: str) -> tuple[str, ...]:
    """File stems of a task's finding: the first one wins when read, the last one is written."""
    if not _is_name(task_id):
        return ()
    return (task_id, task_id.replace(".", "-")) if _DOTTED_ID.fullmatch(task_id) else (task_id,)

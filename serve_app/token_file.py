"""The file of further tokens, `<home>/tokens.json` or `ORCHESTRATOR_TOKENS_FILE`: digests, each with tenant and scopes.

`orchestrator token create` and `revoke` write it. Servers read it at the start, and again while they run: when a
request comes and a second has passed since the last look. So a new token counts, and a revoked one no longer does,
without a restart. A file that cannot be understood any more changes nothing; nor does one that is not there, and never
was, on the machine of a replica.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors import whole_files
from orchestrator.errors import Invalid, NotFound
from serve_app.auth import Grant, file_grants

#: seconds between two looks at the file
_LOOK_S = 1.0
#: of a digest, as lists show it and `remove` takes it
_SHORT = 12

_log = logging.getLogger(__name__)


class TokenFile:
    """What the file says now, for one that looks often."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._looked_s = float("-inf")
        self._stamp: tuple[int, ...] | None = None

    def changed(self) -> tuple[Grant, ...] | None:
        """What it grants, when that may be other than at the last call; else None."""
        now_s = self._monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return None
        self._looked_s = now_s
        stamp = self._stamped()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            return file_grants(self._path)
        except Invalid as error:
            _log.warning("the tokens known so far stay as they are: %s", error)
            return None

    def _stamped(self) -> tuple[int, ...] | None:
        """Another one for each content; None = there is no such file."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)


def short(sha256: str) -> str:
    """What names a token whose name is not told: the beginning of its digest."""
    return sha256[:_SHORT]


def add(path: Path, token: str, tenant: str, scopes: Sequence[str], name: str) -> Grant:
    """The file also has `token`. Raises Invalid for a file that cannot be understood."""
    made = Grant(hashlib.sha256(token.encode()).hexdigest(), tenant, tuple(scopes), name)
    with _changing(path):
        _write(path, (*file_grants(path), made))
    return made


def remove(path: Path, named: str) -> Grant:
    """The file no longer has the token of that name, or whose digest begins so.

    Raises NotFound for none, Invalid for more than one and for a file that cannot be understood.
    """
    with _changing(path):
        grants = file_grants(path)
        by_name = [each for each in grants if each.name == named]
        by_digest = [each for each in grants if len(named) >= _SHORT and each.sha256.startswith(named.lower())]
        found = by_name or by_digest
        if not found:
            raise NotFound("token", named)
        if len(found) > 1:
            ids = ", ".join(short(each.sha256) for each in found)
            raise Invalid(f"{len(found)} tokens are called {named}: give the id of one, {ids}")
        _write(path, tuple(each for each in grants if each is not found[0]))
    return found[0]


def _write(path: Path, grants: Sequence[Grant]) -> None:
    whole_files.put(path, (json.dumps([_entry(each) for each in grants], indent=2) + "\n").encode())


def _entry(each: Grant) -> dict[str, Any]:
    return {"sha256": each.sha256, "tenant": each.tenant, "scopes": list(each.scopes), "name": each.name}


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Nobody else changes the file within the block."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

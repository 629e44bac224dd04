"""What a data directory tells about its server: who runs it, where it answers, with which tokens.

<home>/credentials.json   {"url", "tokens": {"admin", "client", "worker"}}, 0600, made at first start
<home>/secret.key         under which secrets are stored (`actors/vault.py`), 0600, made at first start
<home>/server.json        what the running (or last) server told about itself; gone while the next one starts
<home>/seat.id            which data directory this is, for servers that share a journal; made at first start
<home>/server.lock        held by the process of `orchestrator up` for as long as it lives
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import msgspec

from actors import whole_files
from actors.clock import Clock
from orchestrator.errors import Conflict, Invalid

#: scopes of the tokens that every server has from its first start
_SCOPES = ("admin", "client", "worker")


class Credentials(TypedDict):
    """The operator's copy of url and tokens."""

    url: str
    tokens: dict[str, str]


class Server(msgspec.Struct, frozen=True):
    """What a server tells about itself."""

    pid: int
    url: str
    version: str
    #: RFC 3339, UTC
    started_at: str
    ready: bool = False
    dashboard_url: str | None = None
    ray_address: str | None = None


def read_credentials(home: Path) -> Credentials | None:
    """What `up` wrote at its first start; None before. Raises Invalid for a damaged file."""
    path = home / "credentials.json"
    try:
        content = json.loads(path.read_bytes())
        return {"url": str(content["url"]), "tokens": dict(content["tokens"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(f"{path} is damaged ({error!r}); remove it, and the next start makes new tokens") from None


def ensure_credentials(home: Path, url: str) -> Credentials:
    """Credentials of `home` exist and name `url`; tokens stay what they were."""
    tokens = dict((read_credentials(home) or {"tokens": {}})["tokens"])
    clock = Clock()
    credentials: Credentials = {"url": url, "tokens": {s: tokens.get(s) or clock.token() for s in _SCOPES} | tokens}
    whole_files.put(home / "credentials.json", (json.dumps(credentials, indent=2) + "\n").encode())
    return credentials


def ensure_secret_key(home: Path) -> str:
    """The key under which secrets are stored, in `secret.key` of `home`; made when there is none. Raises Invalid."""
    path = home / "secret.key"
    if not path.exists():
        whole_files.put(path, f"{Clock().token()}\n".encode())
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise Invalid(f"{path} cannot be read ({error!r})") from None
    if not key:
        raise Invalid(f"{path} is empty; put the key back, or remove it: then secrets stored so far are lost")
    return key


def ensure_seat(home: Path) -> str:
    """An id of this data directory alone."""
    path = home / "seat.id"
    if not path.exists():
        whole_files.put(path, f"{Clock().uuid()}\n".encode())
    return path.read_text().strip()


def write_server(home: Path, server: Server) -> None:
    """`read_server` answers `server` from now on."""
    whole_files.put(home / "server.json", msgspec.json.encode(server) + b"\n")


def read_server(home: Path) -> Server | None:
    """What the last server told, running or not."""
    try:
        return msgspec.json.decode((home / "server.json").read_bytes(), type=Server)
    except (OSError, msgspec.MsgspecError):
        return None


def running(home: Path) -> Server | None:
    """The server that runs now; its `ready` may still be False."""
    return read_server(home) if is_claimed(home) else None


def is_claimed(home: Path) -> bool:
    """True while some `orchestrator up` lives on `home`."""
    try:
        with open(home / "server.lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """This process is the server of `home` within the block. Raises Conflict when another one is."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(home / "server.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(who_runs(home, read_server(home))) from None
        (home / "server.json").unlink(missing_ok=True)  # a former one is told of; another process may have its number
        yield


def who_runs(home: Path, server: Server | None) -> str:
    """That there is a server already, and how to be rid of it."""
    where = f" (pid {server.pid}, {server.url})" if server else ""
    return f"a server already runs on {home}{where}; stop it with `orchestrator down --data-dir {home}`"

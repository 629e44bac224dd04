"""A real server for tests: started once through the real command line, stopped at the end.

    @pytest.fixture live  ->  Server (url, tokens, home)  ->  server.api()  ->  Api (one principal's HTTP client)

Everything lives in a temporary data directory and on free ports. Processes are told apart from
those of other servers by `ORCHESTRATOR_HOME` in their environment (or in that of an ancestor:
Ray overwrites the environment block of its workers with their titles).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.dags_api import Api, Json
from tests.instances_api import Board, write_project

#: user code that definitions sent over HTTP may name; copied to where workers find deployed code
TASKS = Path(__file__).with_name("live_tasks.py")
#: blueprints that every server of the tests has loaded
BLUEPRINTS = (Path(__file__).parents[1] / "examples" / "approval" / "approval_and_worker.py",)

# ---------------------------------------------------------------- the server


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a server, as `/proc` shows it."""

    pid: int
    parent: int
    title: str

    def kill(self) -> None:
        """SIGKILL; nothing happens when it is gone already."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and everything needed to talk to it."""

    url: str
    home: Path
    tokens: Mapping[str, str]
    environ: Mapping[str, str]
    #: options `up` was started with
    options: tuple[str, ...]

    def api(self, who: str = "admin") -> Api:
        """An HTTP client of this server acting as `who`: admin, client, worker, other (second tenant) or nobody."""
        return Api(self.url, self.tokens.get(who))

    def board(self) -> Board:
        """Instances and plans of this server, as anybody on this machine sees them."""
        return Board(self.url, self.home / "project")

    def cli(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs `orchestrator <arguments>` against this server."""
        return subprocess.run(
            [*command(), *arguments],
            env=dict(self.environ),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def processes(self, title: str = "") -> list[Process]:
        """The server's processes whose title contains `title`."""
        return [process for process in processes(self.home) if title in process.title]

    def up(self, timeout_s: float = 120) -> None:
        """The server runs again, on the same home and port. It must be down."""
        _up(self.options, self.environ, self.home, timeout_s)

    def down(self) -> None:
        """The server has ended in good order; its home stays."""
        done = self.cli("down")
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self) -> None:
        """No process of this server is left, and its directory is gone."""
        try:
            self.cli("down")
        finally:
            kill_all(self.home)
            shutil.rmtree(self.home, ignore_errors=True)


def start(
    options: Sequence[str] = (),
    *,
    environ: Mapping[str, str] | None = None,
    code: Sequence[Path] = (TASKS,),
    timeout_s: float = 120,
) -> Server:
    """A ready server on a fresh home. `code` is importable by its workers and allowed as entry points."""
    home = Path(tempfile.mkdtemp(prefix="orc-"))
    (home / "dags").mkdir()
    for source in code:
        shutil.copy(source, home / "dags" / source.name)
    (home / "blueprints").mkdir()
    for source in BLUEPRINTS:
        shutil.copy(source, home / "blueprints" / source.name)
    extra = tokens_file(home)
    write_project(home / "project", home / "executors.yaml")
    settings = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ORCHESTRATOR_", "RAY_", "REDIS_"))
        },
        "ORCHESTRATOR_HOME": str(home),
        "ORCHESTRATOR_TOKENS_FILE": str(home / "tokens.json"),
        "ORCHESTRATOR_ENTRYPOINT_ALLOW": ",".join(source.stem for source in code),
        "BLUEPRINTS_DIR": str(home / "blueprints"),
        "ORCHESTRATOR_PLANS_ROOT": str(home / "project"),
        "ORCHESTRATOR_EXECUTORS_FILE": str(home / "executors.yaml"),
        "DAGS_RATE_LIMIT_RPS": "10000",
        "DAGS_RATE_LIMIT_BURST": "10000",
        "RATE_LIMIT_MAX": "100000",
        **(environ or {}),
    }
    arguments = ("--port", str(free_port()), *options)
    try:
        credentials = _up(arguments, settings, home, timeout_s)
    except BaseException:
        kill_all(home)
        shutil.rmtree(home, ignore_errors=True)
        raise
    return Server(credentials["url"].rstrip("/"), home, {**credentials["tokens"], **extra}, settings, arguments)


@contextlib.contextmanager
def serving(options: Sequence[str] = (), **more: Any) -> Iterator[Server]:
    """A server for the length of a `with` block."""
    server = start(options, **more)
    try:
        yield server
    finally:
        server.stop()


def _up(options: Sequence[str], environ: Mapping[str, str], home: Path, timeout_s: float) -> Json:
    """Credentials printed by `up`; raises with everything it wrote when it fails."""
    out = home / "up.out"
    with out.open("w") as stdout, (home / "up.err").open("w") as stderr:
        # a file, not a pipe: a detached server may keep the pipe open and block us for ever
        done = subprocess.run(
            [*command(), "up", "--json", "--detach", *options],
            env=dict(environ),
            cwd=home,
            stdout=stdout,
            stderr=stderr,
            timeout=timeout_s,
            check=False,
        )
    text = out.read_text()
    if done.returncode != 0 or "{" not in text:
        logs = "\n".join(f"--- {p}\n{p.read_text(errors='replace')[-3000:]}" for p in sorted(home.rglob("*.log"))[:5])
        raise RuntimeError(f"up failed with {done.returncode}\n{text}\n{(home / 'up.err').read_text()[-5000:]}\n{logs}")
    answer: Json = json.loads(text[text.index("{") :])
    return answer


def command() -> list[str]:
    """How to run the command line of this checkout."""
    script = Path(sys.executable).with_name("orchestrator")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from serve_app.cli import main; main()"]


def tokens_file(home: Path) -> dict[str, str]:
    """Writes a second tenant's token to `<home>/tokens.json` and returns it as {"other": token}."""
    token = secrets.token_urlsafe(32)
    entry = {
        "sha256": hashlib.sha256(token.encode()).hexdigest(),
        "tenant": "other",
        "scopes": ["client", "worker", "admin"],
        "name": "second tenant of the tests",
    }
    (home / "tokens.json").write_text(json.dumps([entry]))
    return {"other": token}


def free_port() -> int:
    """A TCP port nobody listens on now, and that no outgoing connection gets in the seconds until it is used."""
    for port in random.sample(range(10_000, 20_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


def processes(home: Path) -> list[Process]:
    """Every process started with `ORCHESTRATOR_HOME=<home>`, all their descendants, and the journal of this home."""
    found = {process.pid: process for process in _all_processes()}
    mark = f"ORCHESTRATOR_HOME={home}".encode()
    ours = {pid for pid in found if mark in _environment(pid).split(b"\0")}
    ours |= {process.pid for process in found.values() if is_journal_of(home, process)}
    ours.discard(os.getpid())
    return below(ours, found)


def below(pids: Set[int], found: Mapping[int, Process] | None = None) -> list[Process]:
    """The processes `pids`, as far as they live, and all their descendants, of those in `found` (None = all)."""
    if found is None:
        found = {process.pid: process for process in _all_processes()}
    ours = pids & found.keys()
    while more := {p.pid for p in found.values() if p.parent in ours} - ours:
        ours |= more
    return [found[pid] for pid in sorted(ours)]


def is_journal_of(home: Path, process: Process) -> bool:
    """Is this the Valkey server of this home? It is started with an environment of its own."""
    try:
        return int((home / "valkey" / "valkey.pid").read_text()) == process.pid and "valkey" in process.title
    except (OSError, ValueError):
        return False


def kill_all(home: Path) -> None:
    """SIGKILL to whatever is left of the server with this home."""
    for _ in range(20):
        left = processes(home)
        if not left:
            return
        for process in left:
            process.kill()
        time.sleep(0.1)


def _all_processes() -> Iterator[Process]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if title:  # neither a kernel thread nor a zombie
                yield Process(int(entry.name), parent, title)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


# ---------------------------------------------------------------- fixtures


@functools.cache
def _shared() -> Server:
    return start()


@pytest.fixture(scope="session")
def live(request: pytest.FixtureRequest) -> Server:
    """The one server of this test session. Folders that use it import this name in their conftest."""
    first = _shared.cache_info().currsize == 0
    server = _shared()
    if first:
        request.config.add_cleanup(server.stop)
    return server


@pytest.fixture(scope="session")
def api(live: Server) -> Api:
    """The shared server as the operator sees it."""
    return live.api()

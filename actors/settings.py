"""Everything that can be set, read once from the environment and the command line at start.

`Settings` is a flat value: it travels to Ray actors as a plain dict (`to_dict`, `from_dict`) and holds
no handle. Precedence: command line, then `ORCHESTRATOR_*` (or the name a contract gives), then the
default. Import stays light: every actor process reads this module.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from orchestrator.addresses import is_loopback
from orchestrator.errors import Invalid
from orchestrator.headroom import read_headroom
from orchestrator.pools import NUMBERS


def _setting(
    default: Any, *names: str, secret: bool = False, words: tuple[str, ...] = (), lenient: bool = False
) -> Any:
    """A field read from the first of the environment variables `names` that is set and not empty.

    With `words` it must be one of them. A `lenient` one is a whole number, and keeps its default when the variable
    holds anything but a number of at least 1.
    """
    return field(default=default, repr=not secret, metadata={"names": names, "words": words, "lenient": lenient})


#: every address of a machine -> the one under which it reaches itself
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One server's settings. Spans are seconds (`_s`), sizes bytes (`_bytes`)."""

    #: data directory, absolute
    home: str = _setting("~/.orchestrator", "ORCHESTRATOR_HOME")

    # -- where it listens, and on what it runs
    host: str = _setting("127.0.0.1", "ORCHESTRATOR_HOST")
    port: int = _setting(8000, "ORCHESTRATOR_PORT", "PORT", "API_PORT")
    #: an existing Ray cluster to join; empty = a cluster of our own on this machine
    ray_address: str = _setting("", "ORCHESTRATOR_RAY_ADDRESS")
    dashboard: bool = _setting(True, "ORCHESTRATOR_DASHBOARD")
    #: 0 = 8265, or the next free one
    dashboard_port: int = _setting(0, "ORCHESTRATOR_DASHBOARD_PORT")
    object_store_memory_bytes: int = _setting(200_000_000, "ORCHESTRATOR_OBJECT_STORE_MEMORY_BYTES")

    # -- large values that tasks return (`actors/artifacts.py`)
    #: where they are stored; empty = `<home>/artifacts`. A node that has this in its own environment goes by that
    artifacts_dir: str = _setting("", "ORCHESTRATOR_ARTIFACTS_DIR")
    #: fsspec URL of a store that they are kept in instead; empty = there is none
    artifacts_url: str = _setting("", "ORCHESTRATOR_ARTIFACTS_URL")
    #: what a node has of values that it can have again
    artifacts_cache_bytes: int = _setting(10 * 1024**3, "ORCHESTRATOR_ARTIFACTS_CACHE_BYTES")
    #: they go so long after the end of their run; 0 = for ever
    artifacts_retention_days: float = _setting(180.0, "ORCHESTRATOR_ARTIFACTS_RETENTION_DAYS")
    #: values in the memory of one node; 0 = half of what /dev/shm holds
    memory_values_bytes: int = _setting(0, "ORCHESTRATOR_MEMORY_VALUES_BYTES")
    #: where Ray's GCS of a cluster of our own keeps what it knows (`serve_app/gcs_keeper.py`)
    gcs_storage: str = _setting("memory", "ORCHESTRATOR_GCS_STORAGE", words=("memory", "rocksdb"))

    # -- the journal
    #: a Redis >= 7 or Valkey kept by somebody else; empty = embedded Valkey under `home`
    redis_url: str = _setting("", "REDIS_URL", secret=True)
    #: where the journal really answers; `up` fills it in once that server runs
    journal_url: str = _setting("", secret=True)

    #: which data directory this server has; `up` fills it in
    plane_seat: str = _setting("")

    # -- sizes of the cast
    run_actors_max: int = _setting(2, "ORCHESTRATOR_RUN_ACTORS_MAX")
    #: worker slots of pool `default`; 0 = one per CPU, of a cluster that we join: one per CPU of its worker nodes
    workers: int = _setting(0, "ORCHESTRATOR_WORKERS")
    api_replicas: int = _setting(1, "ORCHESTRATOR_API_REPLICAS")

    # -- shares of worker slots among the classes of a tenant's runs
    share_scheduled: float = _setting(4.0, "ORCHESTRATOR_SHARE_SCHEDULED")
    share_manual: float = _setting(4.0, "ORCHESTRATOR_SHARE_MANUAL")
    share_backfill: float = _setting(1.0, "ORCHESTRATOR_SHARE_BACKFILL")
    #: slots of each pool that are kept free for what is not a backfill: `1`, or `default=2,gpu=1`
    backfill_headroom: str = _setting("0", "ORCHESTRATOR_BACKFILL_HEADROOM")

    # -- spans
    passivate_after_s: float = _setting(300.0, "ORCHESTRATOR_PASSIVATE_AFTER_S")
    cancel_grace_s: float = _setting(5.0, "ORCHESTRATOR_CANCEL_GRACE_S")
    #: how long a request may wait for the journal or an actor
    worker_ping_s: float = _setting(3.0, "ORCHESTRATOR_WORKER_PING_S")
    #: silence after which a worker counts as lost
    worker_lease_s: float = _setting(9.0, "ORCHESTRATOR_WORKER_LEASE_S")

    #: a run that its caller drives fails after so long without a checkpoint; 0 = never
    taskless_run_ttl_s: float = _setting(86_400.0, "ORCHESTRATOR_TASKLESS_RUN_TTL_S")
    #: a run that has ended is shown on the runs surface for so long; 0 = for ever
    run_retention_s: float = _setting(2_592_000.0, "ORCHESTRATOR_RUN_RETENTION_S")
    #: the events of a run are kept for so long after its end; 0 = for ever
    history_retention_days: float = _setting(180.0, "ORCHESTRATOR_HISTORY_RETENTION_DAYS")

    # -- the archive of runs that have ended (`actors/archiver.py`)
    #: a run leaves for it by itself so long after its end; 0 = only when asked
    archive_after_days: float = _setting(0.0, "ORCHESTRATOR_ARCHIVE_AFTER_DAYS")
    #: folder or fsspec URL of its segments; empty = `<home>/archive/segments`
    archive_url: str = _setting("", "ORCHESTRATOR_ARCHIVE_URL")

    # -- the Kubernetes cluster for runs whose tasks are Jobs (`actors/kubernetes_config.py`)
    #: plain address of its API, such as that of `kubectl proxy`; empty = as kubeconfig or the pod's service account say
    k8s_api_url: str = _setting("", "ORCHESTRATOR_K8S_API_URL")
    #: files as `kubectl` reads them, with colons between; empty = `~/.kube/config`
    kubeconfig: str = _setting("", "KUBECONFIG")
    k8s_namespace: str = _setting("default", "ORCHESTRATOR_K8S_NAMESPACE")
    #: for tasks that name no image; empty = each has to
    k8s_image: str = _setting("", "ORCHESTRATOR_K8S_IMAGE")

    # -- plans and the orchestrator instances that work through them
    #: folder that holds `docs/plans`; empty = the working directory at start
    plans_root: str = _setting("", "ORCHESTRATOR_PLANS_ROOT")
    #: how tasks of a plan are carried out when the caller does not say
    executor: str = _setting("echo", "ORCHESTRATOR_EXECUTOR")
    #: YAML file with more executors; empty = `echo` alone
    executors_file: str = _setting("", "ORCHESTRATOR_EXECUTORS_FILE")
    #: an instance that has ended is shown for so long
    instance_retention_s: float = _setting(120.0, "ORCHESTRATOR_INSTANCE_RETENTION_S")
    #: an attempt of a plan's task that takes longer has failed
    task_stuck_s: float = _setting(1800.0, "ORCHESTRATOR_TASK_STUCK_S")

    # -- what may run here
    #: folders on every worker's import path, after `<home>/dags`
    code_dirs: tuple[str, ...] = _setting((), "ORCHESTRATOR_CODE_DIRS")
    #: prefixes of `entrypoint` accepted over HTTP; empty = none
    entrypoint_allow: tuple[str, ...] = _setting((), "ORCHESTRATOR_ENTRYPOINT_ALLOW")
    allow_shell: bool = _setting(False, "ORCHESTRATOR_ALLOW_SHELL")
    #: bundles of code are accepted over HTTP; the operator's command line on this machine needs no permission
    allow_bundles: bool = _setting(False, "ORCHESTRATOR_ALLOW_BUNDLES")
    #: fsspec URL that all nodes reach; empty = `<home>/bundles`, which they share
    bundles_url: str = _setting("", "ORCHESTRATOR_BUNDLES_URL")

    # -- who may ask (the tokens themselves: `serve_app/auth.py`)
    allow_anonymous: bool = _setting(True, "ORCHESTRATOR_ALLOW_ANONYMOUS")
    private_docs: bool = _setting(False, "ORCHESTRATOR_PRIVATE_DOCS")
    #: JSON file with tokens of more tenants; empty = `<home>/tokens.json`, where `token create` writes
    tokens_file: str = _setting("", "ORCHESTRATOR_TOKENS_FILE")
    #: empty = loopback origins on any port
    cors_origins: tuple[str, ...] = _setting((), "CORS_ORIGINS")

    # -- the runs surface
    #: what a POST /runs without `mode` asks for
    runs_default_mode: str = _setting("redis", "ORCHESTRATOR_RUNS_DEFAULT_MODE", words=("plan", "redis", "k8s"))

    # -- the jobs surface: what there is
    #: folder with blueprints in Python, YAML and JSON; empty = there are none
    blueprints_dir: str = _setting("", "BLUEPRINTS_DIR")
    clients_config_path: str = _setting("", "CLIENTS_CONFIG_PATH")
    workers_config_path: str = _setting("", "WORKERS_CONFIG_PATH")
    schedules_config_path: str = _setting("", "SCHEDULES_CONFIG_PATH")
    #: of the wall clock by which schedules fire
    schedules_zone: str = _setting("UTC", "TZ")
    job_history: bool = _setting(True, "JOB_HISTORY_ENABLED")
    #: `POST /_public/debug/flush_db` erases every job
    debug: bool = _setting(False, "ORCHESTRATOR_DEBUG")

    # -- its workers
    #: a task that has no `timeout_seconds` of its own may take so long
    worker_timeout_s: float = _setting(300.0, "WORKER_TIMEOUT_SECONDS")
    worker_poll_timeout_s: float = _setting(30.0, "WORKER_POLL_TIMEOUT_SECONDS")
    #: a worker that is silent for twice as long has expired
    worker_health_check_interval_s: float = _setting(60.0, "WORKER_HEALTH_CHECK_INTERVAL_SECONDS")
    #: 50 requests a second per worker and path
    rate_limiting: bool = _setting(False, "RATE_LIMITING_ENABLED")

    # -- its jobs
    job_max_retries: int = _setting(3, "JOB_MAX_RETRIES")
    #: 0 = at once
    job_retry_backoff_s: float = _setting(1.0, "JOB_RETRY_BACKOFF_SECONDS")
    job_max_redeliveries: int = _setting(3, "JOB_MAX_REDELIVERIES")
    job_dispatch_timeout_s: float = _setting(300.0, "JOB_DISPATCH_TIMEOUT_SECONDS")
    job_cancel_grace_s: float = _setting(30.0, "CANCEL_GRACE_SECONDS")
    #: how often silence of workers and replicas is looked for
    watcher_interval_s: float = _setting(1.0, "WATCHER_INTERVAL_SECONDS")
    #: a handler in Python that takes longer has failed
    blueprint_handler_timeout_s: float = _setting(60.0, "BLUEPRINT_HANDLER_TIMEOUT_S")
    #: handlers in Python that run at once
    executor_max_concurrent_jobs: int = _setting(100, "EXECUTOR_MAX_CONCURRENT_JOBS")

    # -- its webhooks
    webhook_secret: str = _setting("", "WEBHOOK_SECRET", secret=True)
    webhook_max_attempts: int = _setting(6, "WEBHOOK_MAX_ATTEMPTS")
    webhook_allow_private: bool = _setting(False, "WEBHOOK_ALLOW_PRIVATE")

    #: one line of JSON per request and per response, in `<home>/logs/access.log`
    access_log: bool = _setting(True, "ORCHESTRATOR_ACCESS_LOG")

    # -- the pipelines surface
    #: a runner that gave no sign of life for so long is offline, and its jobs are lost
    pipelines_runner_timeout_s: float = _setting(90.0, "PIPELINES_RUNNER_TIMEOUT_S")
    #: a job whose runner was lost is queued again at least so often, whatever its own retries
    pipelines_lost_runner_retries: int = _setting(1, "PIPELINES_LOST_RUNNER_RETRIES")
    #: a job that no runner claims for so long has timed out
    pipelines_queue_timeout_s: float = _setting(86_400.0, "PIPELINES_QUEUE_TIMEOUT_S")
    #: before the first retry; doubles with each, up to 60 s
    pipelines_retry_delay_s: float = _setting(1.0, "PIPELINES_RETRY_DELAY_S")
    #: runners of our own, inside the cluster
    pipelines_incluster_runners: int = _setting(0, "PIPELINES_INCLUSTER_RUNNERS")
    #: how they run processes
    pipelines_process_backend: str = _setting("none", "PIPELINES_PROCESS_BACKEND", words=("none", "podman", "local"))
    #: under which secrets are encrypted; empty = that of `<home>/secret.key`, which `up` fills in
    secret_key: str = _setting("", "ORCHESTRATOR_SECRET_KEY", secret=True)

    # -- who watches
    #: base URL of a collector that takes OTLP over HTTP (extra `otel`); empty = there are no traces
    otlp_endpoint: str = _setting("", "OTEL_EXPORTER_OTLP_ENDPOINT")

    # -- limits
    max_body_bytes: int = _setting(16 * 1024 * 1024, "ORCHESTRATOR_MAX_BODY_BYTES")
    dags_rate_limit_rps: float = _setting(10.0, "DAGS_RATE_LIMIT_RPS")
    dags_rate_limit_burst: int = _setting(20, "DAGS_RATE_LIMIT_BURST")
    dags_backfill_max_windows: int = _setting(100_000, "DAGS_BACKFILL_MAX_WINDOWS")
    #: fires missed that catch-up `all` makes up for
    dags_catchup_max: int = _setting(1000, "DAGS_CATCHUP_MAX")
    dags_max_dags_per_tenant: int = _setting(10_000, "DAGS_MAX_DAGS_PER_TENANT")
    #: of the runs surface: requests per caller in any span of so long
    rate_limit_max: int = _setting(120, "RATE_LIMIT_MAX", lenient=True)
    rate_limit_window_ms: int = _setting(60_000, "RATE_LIMIT_WINDOW_MS", lenient=True)

    @property
    def traced(self) -> bool:
        """Do spans go to a collector?"""
        return bool(self.otlp_endpoint)

    @property
    def embedded(self) -> bool:
        """True when the journal is the Valkey server that we keep ourselves."""
        return not self.redis_url

    @property
    def worker_count(self) -> int:
        """Worker slots to start with."""
        return self.workers or os.cpu_count() or 1

    @property
    def works_outside(self) -> bool:
        """Is the gateway needed from the start, since blueprints or CI runners are set?"""
        return bool(self.blueprints_dir or self.pipelines_incluster_runners)

    @property
    def import_dirs(self) -> tuple[str, ...]:
        """Folders with the operator's DAG code, in import order."""
        return (str(self.path("dags")), *self.code_dirs)

    @property
    def more_tokens_path(self) -> Path:
        """Where tokens beyond the first three are kept."""
        return Path(self.tokens_file) if self.tokens_file else self.path("tokens.json")

    @property
    def private_webhooks(self) -> bool:
        """May webhooks go to addresses that are not public?"""
        return self.webhook_allow_private or is_loopback(self.host)

    @property
    def url(self) -> str:
        """Base URL for callers on this machine."""
        return self.url_at(ANY_HOST.get(self.host, self.host))

    def url_at(self, host: str) -> str:
        """Base URL for callers that reach this machine as `host`."""
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def fingerprint(self) -> str:
        """Tells one orchestrator from another on the same cluster; says nothing about what it is made from."""
        return hashlib.sha256(f"{self.home}\0{self.journal_url}".encode()).hexdigest()[:16]

    def path(self, *parts: str) -> Path:
        """A path inside the data directory."""
        return Path(self.home, *parts)

    @property
    def artifacts(self) -> Path:
        """Where large values are stored."""
        return Path(self.artifacts_dir) if self.artifacts_dir else self.path("artifacts")

    def with_journal(self, url: str) -> Settings:
        """The same settings, now that the journal answers at `url`."""
        return dataclasses.replace(self, journal_url=url)

    def with_seat(self, seat: str) -> Settings:
        """The same settings, on a data directory of that id."""
        return dataclasses.replace(self, plane_seat=seat)

    def with_workers(self, number: int) -> Settings:
        """The same settings with so many workers to start with."""
        return dataclasses.replace(self, workers=number)

    def with_secret_key(self, key: str) -> Settings:
        """The same settings with the key under which secrets are stored."""
        return dataclasses.replace(self, secret_key=key)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for a Ray actor's constructor."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Inverse of `to_dict`; unknown keys (of a newer version) are left out."""
        known = {name: values[name] for name in _NAMES if name in values}
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()}
        return cls(**plain)


_NAMES = tuple(each.name for each in fields(Settings))


def read_settings(environ: Mapping[str, str], **given: Any) -> Settings:
    """Settings of this process. `given` comes from the command line; None there means "not given".

    Raises Invalid for a value that cannot be read, naming the variable.
    """
    values = _from_environ(environ) | {name: value for name, value in given.items() if value is not None}
    url = values.get("artifacts_url", "")
    if url.startswith(("file://", "/")):  # a folder that all nodes see, which can be mapped as it is
        values |= {"artifacts_dir": url.removeprefix("file://"), "artifacts_url": ""}
    settings = Settings(**values)
    class_weights(settings)
    headroom(settings)
    _check_bounds(settings)
    given_paths: dict[str, Any] = {name: _absolute(path) for name in _OPTIONAL_PATHS if (path := values.get(name))}
    return dataclasses.replace(
        settings,
        home=_absolute(settings.home),
        code_dirs=tuple(_absolute(folder) for folder in settings.code_dirs),
        plans_root=_absolute(settings.plans_root or "."),
        **given_paths,
        journal_url=settings.journal_url or settings.redis_url,
    )


def class_weights(settings: Settings) -> dict[tuple[int, str], float]:
    """Weights of the classes, whose names are on the second level of `Shares`. Raises Invalid for one out of range."""
    weights = {
        (1, "scheduled"): settings.share_scheduled,
        (1, "manual"): settings.share_manual,
        (1, "backfill"): settings.share_backfill,
    }
    for (_, name), weight in weights.items():
        if not 0.01 <= weight <= 100:
            variable = f"ORCHESTRATOR_SHARE_{name.upper()}"
            raise Invalid(f"{variable}={weight}: a number from 0.01 to 100 expected", ((variable, "is out of range"),))
    return weights


def headroom(settings: Settings) -> dict[str, int]:
    """Pool, or `*` for the others -> slots that are kept from backfills. Raises Invalid for what cannot be read."""
    return read_headroom(settings.backfill_headroom)


#: name -> least and most it may be: a hundred years, an exabyte, numbers that workers of one pool may have
_BOUNDS: dict[str, tuple[float, float]] = {
    "archive_after_days": (0, 36_500),
    "history_retention_days": (0, 36_500),
    "artifacts_retention_days": (0, 36_500),
    "artifacts_cache_bytes": (0, 2**60),
    "memory_values_bytes": (0, 2**60),
    "port": (1, 65_535),
    "workers": (0, NUMBERS),
    "run_actors_max": (1, 1000),
    "api_replicas": (1, 1000),
    "pipelines_incluster_runners": (0, 1000),
    "worker_ping_s": (0.01, 86_400),
    "worker_lease_s": (0.01, 86_400),
    "cancel_grace_s": (0, 86_400),
    "passivate_after_s": (0, 3_153_600_000),
}


def _check_bounds(settings: Settings) -> None:
    """Raises Invalid for what would fail in an actor, where nobody sees it."""
    for each in fields(Settings):
        bounds, value = _BOUNDS.get(each.name), getattr(settings, each.name)
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            variable, span = each.metadata["names"][0], f"from {bounds[0]} to {bounds[1]}"
            raise Invalid(f"{variable}={value}: a number {span} expected", ((variable, "is out of range"),))


#: files and folders that need not be given
_OPTIONAL_PATHS = (
    "artifacts_dir",
    "executors_file",
    "blueprints_dir",
    "clients_config_path",
    "workers_config_path",
    "schedules_config_path",
)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in fields(Settings):
        for name in each.metadata["names"]:
            if text := environ.get(name, "").strip():
                values[each.name] = _read(name, text, each)
                break
    return values


def _read(name: str, text: str, setting: dataclasses.Field[Any]) -> Any:
    if setting.metadata["lenient"]:
        return _number_of_at_least_1(text) or setting.default
    kind, words = type(setting.default), setting.metadata["words"]
    expected = f"one of {', '.join(words)}" if words else _EXPECTED[kind]
    try:
        value = _READERS[kind](text)
        if words and value not in words:
            raise ValueError(text)
        return value
    except ValueError:
        raise Invalid(f"{name}={text!r}: {expected} expected", ((name, f"{expected} expected"),)) from None


def _number_of_at_least_1(text: str) -> int | None:
    """Its whole part; None for anything else."""
    try:
        number = int(float(text))
    except (ValueError, OverflowError):
        return None
    return number if number >= 1 else None


def _read_bool(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _read_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_READERS: dict[type, Callable[[str], Any]] = {str: str, int: int, float: float, bool: _read_bool, tuple: _read_list}
_EXPECTED = {str: "text", int: "a whole number", float: "a number", bool: "0 or 1", tuple: "a comma list"}

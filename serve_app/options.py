"""What the HTTP layer is told at start: the part of `actors.settings` that it needs, as a flat value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.kubernetes_config import configured
from actors.settings import Settings, read_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """One server's HTTP options."""

    #: data directory; `<home>/deployed` holds compiled definitions
    home: str
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    max_body_bytes: int = 16 * 1024 * 1024
    #: requests per second and tenant on the dags surface, and the most at once
    rate_limit_rps: float = 10.0
    rate_limit_burst: int = 20
    allow_shell: bool = False
    #: code in bundles may come over HTTP
    allow_bundles: bool = False
    entrypoint_allow: tuple[str, ...] = ()
    private_docs: bool = False
    allow_anonymous: bool = True
    #: empty = loopback origins on any port; "*" = any
    cors_origins: tuple[str, ...] = ()
    #: of the dags surface: a stream is closed after this time (plus up to a fifth), and the client resumes
    stream_life_s: float = 600.0

    # -- the runs surface
    #: what a POST /runs without `mode` asks for: plan | redis | k8s
    runs_default_mode: str = "redis"
    #: requests per caller in any span of `runs_rate_window_s`
    runs_rate_max: int = 120
    runs_rate_window_s: float = 60.0
    #: mode k8s has a cluster to run tasks in
    kubernetes_ready: bool = False
    #: of tasks in mode k8s that name no image; empty = each must name one
    kubernetes_image: str = ""

    # -- the jobs surface
    #: longest wait of a poll that asks for no shorter one
    worker_poll_timeout_s: float = 30.0
    #: lines of jobs' histories are shown
    job_history: bool = True
    #: 50 requests per second, worker and path
    rate_limiting: bool = False
    #: off loopback webhooks may name private addresses
    webhook_allow_private: bool = False
    #: anybody may erase every job
    debug: bool = False

    #: lines about requests go to `<home>/logs/access.log`
    access_log: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> ServerOptions:
        """The HTTP part of `settings`."""
        return cls(
            home=settings.home,
            host=settings.host,
            port=settings.port,
            replicas=settings.api_replicas,
            max_body_bytes=settings.max_body_bytes,
            rate_limit_rps=settings.dags_rate_limit_rps,
            rate_limit_burst=settings.dags_rate_limit_burst,
            allow_shell=settings.allow_shell,
            allow_bundles=settings.allow_bundles,
            entrypoint_allow=settings.entrypoint_allow,
            private_docs=settings.private_docs,
            allow_anonymous=settings.allow_anonymous,
            cors_origins=settings.cors_origins,
            runs_default_mode=settings.runs_default_mode,
            runs_rate_max=settings.rate_limit_max,
            runs_rate_window_s=settings.rate_limit_window_ms / 1000,
            kubernetes_ready=configured(settings),
            kubernetes_image=settings.k8s_image,
            worker_poll_timeout_s=settings.worker_poll_timeout_s,
            job_history=settings.job_history,
            rate_limiting=settings.rate_limiting,
            webhook_allow_private=settings.webhook_allow_private,
            debug=settings.debug,
            access_log=settings.access_log,
        )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ServerOptions:
        """Options of a process that has nothing but its environment. Raises Invalid."""
        return cls.from_settings(read_settings(environ))

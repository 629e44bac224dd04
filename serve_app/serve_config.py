"""The server as an application that Ray Serve builds from a config file, such as that of a KubeRay `RayService`.

    serveConfigV2: applications: [{name: orchestrator, import_path: serve_app.serve_config:app, route_prefix: /}]

    Serve's controller ── `app({})`, in a process of the cluster ──▶ checks, blueprints, actors; then HTTP

There is no `orchestrator up` then. A driver has to be on a node of the cluster and HTTP would end with it, so the other
way, a RayCluster with a job that runs `orchestrator up --address auto`, adds a process that has to be kept alive, and a
RayService does not know when it is ready. Here Serve builds again what a new cluster needs, and the actors, which are
detached and found by name, are started once for each cluster.

Everything is set by the environment of Ray's processes, the same on every node: actors read it when a cluster starts,
so a change is a new cluster (KubeRay makes one when the pods' environment changes), and `args`, which Serve would take
into a running cluster, are refused. Nothing is made up on first start as `up` does: tokens and the key of secrets come
from outside, and so does the journal. Who listens where says Serve's `http_options`; since those are not known here,
nobody is anonymous. Source: the issue "On a cluster, and watched", item 1.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actors.settings import Settings, read_settings
from orchestrator.errors import Invalid, Unavailable
from serve_app import up
from serve_app.app import configured, grants_of

if TYPE_CHECKING:
    from ray.serve import Application

#: what callers of Serve's proxies may come from: anywhere
_ANY_HOST = "0.0.0.0"

#: seconds for which the journal and the actors may not be there yet: Serve tries four times at once, then never again
PATIENCE_S = 120.0
_AGAIN_S = 5.0

_log = logging.getLogger(__name__)


def app(args: dict[str, Any]) -> Application:
    """What Serve runs, once the actors do. Raises Invalid and WeakTokens before anything starts, then Unavailable."""
    if args:
        raise Invalid(f"args {', '.join(sorted(args))}: settings are read from the environment of Ray's processes")
    settings = checked_settings(os.environ)
    settings = settings.with_workers(settings.worker_count)  # nodes have CPUs of their own, and count anew
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            _start(settings)
        except Unavailable as unavailable:
            if time.monotonic() >= deadline:
                raise
            _log.warning("trying again: %s", unavailable)
            time.sleep(_AGAIN_S)
        else:
            return configured(settings)


def _start(settings: Settings) -> None:
    from actors import spawn

    up.publish_blueprints(settings, _log.warning)
    spawn.start(settings)


def checked_settings(environ: Mapping[str, str]) -> Settings:
    """Settings of every process of this cluster. Raises Invalid for what is missing, WeakTokens for tokens too weak."""
    settings = read_settings(environ, host=_ANY_HOST, ray_address="auto")
    if settings.embedded:
        raise Invalid("REDIS_URL is not set: no process here keeps a journal of our own")
    if not settings.secret_key:
        raise Invalid("ORCHESTRATOR_SECRET_KEY is not set: it has to be the same for every cluster on this journal")
    up.check_tokens(settings)
    up.check_extras(settings)
    if not any("admin" in grant.scopes for grant in grants_of(settings)):
        raise Invalid("there is no token with scope admin: set ORCHESTRATOR_ADMIN_TOKEN or ORCHESTRATOR_TOKENS_FILE")
    return settings

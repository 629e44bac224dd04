"""Joining a Ray cluster that somebody else started: what is checked first, and what our actors there get to know.

    up --address ── somebody listens there? ── ray.init ── versions, token
                 ── this is the head, where HTTP listens ── the journal is reachable from every host
                 ── workers: as many as the CPUs of its worker nodes, unless the operator says

A cluster of our own inherits the environment of `up`. One that we join was started with another environment, on other
hosts; what our processes and Serve's must find in theirs goes along as Ray's runtime environment of the job that
creates them, and is inherited by what they create. It shows up in Ray's dashboard: never a secret. The rest is told in
`docs/clusters.md`: the same Python, Ray and code on every node.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actors.placement import Node, alive, worker_cpus
from actors.settings import Settings
from orchestrator.addresses import is_loopback
from orchestrator.errors import Conflict, Invalid, OrchestratorError, Unavailable
from serve_app import edge

#: seconds in which somebody must answer at the address
_REACH_S = 5.0
_PORT_MAX = 65_535
#: of the environment of `up`, what our processes on the cluster are to have too
_CARRIED = ("ORCHESTRATOR_LOG_LEVEL", "ORCHESTRATOR_LOG_FORMAT", "ORCHESTRATOR_HTTP_ALLOW")


def reach(address: str) -> None:
    """Raises Invalid for what is no address of a cluster, Unavailable when nobody listens there."""
    if "://" in address:
        raise Invalid(f"--address {address}: give HOST:PORT of the cluster's head (GCS), as `ray start` prints it")
    host, colon, port = address.rpartition(":")
    if not colon:  # "auto": Ray looks for it on this machine
        return
    if not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > _PORT_MAX:
        raise Invalid(f"--address {address}: give HOST:PORT of the cluster's head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except UnicodeError:
        raise Invalid(f"--address {address}: give HOST:PORT of the cluster's head") from None
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise Unavailable(
            f"no Ray cluster answers at {address} ({why}); start one with `ray start --head`, or leave --address out"
        ) from None


def join(settings: Settings) -> tuple[str | None, str]:
    """We are connected to the cluster, on its head: (dashboard URL, GCS address).

    Raises Invalid, Unavailable: what is wrong, and what to do.
    """
    import ray

    try:
        context: Any = ray.init(
            settings.ray_address, namespace="orchestrator", log_to_driver=False, logging_level=logging.ERROR
        )
    except Exception as error:  # Ray raises plain RuntimeError and ConnectionError, and others
        raise explained(settings.ray_address, error) from None
    where, nodes = context.address_info, _nodes()
    check_head(str(where["node_id"]), nodes)
    check_journal(settings, nodes)
    dashboard = where.get("webui_url")
    return f"http://{dashboard}" if dashboard else None, str(where["gcs_address"])


def sized(settings: Settings) -> Settings:
    """The settings with the number of workers to start with, unless they have one."""
    return settings if settings.workers else settings.with_workers(worker_cpus(_nodes()))


def check_vacant(settings: Settings) -> None:
    """Raises Conflict when another orchestrator has its actors on this cluster: they would be taken for ours.

    And Unavailable when there are some, and nobody tells whose.
    """
    from actors.spawn import whose

    if whose() not in (None, settings.fingerprint):
        raise Conflict(
            "another orchestrator runs on this cluster, with another data directory or journal: end it with"
            " `orchestrator down` on its data directory, or join another cluster"
        )


def environment(settings: Settings, proxy: dict[str, str]) -> dict[str, str]:
    """What processes on the cluster that we join must find in their environment; `proxy`: for Serve's fast one."""
    carried = {name: os.environ[name] for name in _CARRIED if os.environ.get(name)}
    arenas = {"MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2")}
    return {"ORCHESTRATOR_HOME": settings.home, **arenas, **carried, **edge.serve_environment(), **proxy}


def explained(address: str, error: Exception) -> OrchestratorError:
    """What Ray's refusal means, and what to do about it."""
    text = str(error).strip() or type(error).__name__
    if "ersion mismatch" in text:
        facts = " ".join(text.split())
        return Invalid(
            f"the cluster at {address} runs other versions than this command: {facts}; install the same here"
        )
    return Unavailable(
        f"cannot join the Ray cluster at {address}: {text.splitlines()[0]}. Is it the cluster's GCS that listens there,"
        " and does it want a token? Then set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file that holds it"
    )


def check_head(node_id: str, nodes: Sequence[Node]) -> None:
    """Raises Invalid when the node that this process is on is not the head: HTTP listens on the head."""
    head = next((node for node in nodes if node.head), None)
    if head is not None and head.node_id != node_id:
        raise Invalid(f"HTTP listens on the head of the cluster: run this command there, on {head.host}")


def check_journal(settings: Settings, nodes: Sequence[Node]) -> None:
    """Raises Invalid when there are several hosts, and a journal that only this one reaches."""
    hosts = sorted({node.host for node in nodes})
    if len(hosts) < 2:
        return
    where = f"the cluster has {len(hosts)} hosts ({', '.join(hosts[:5])}{', ...' if len(hosts) > 5 else ''})"
    if settings.embedded:
        raise Invalid(f"{where}, and the embedded journal is reached from this one alone: give --redis-url")
    parts = urlsplit(settings.redis_url)
    if parts.scheme == "unix" or is_loopback(parts.hostname or "localhost"):
        raise Invalid(
            f"{where}, and --redis-url is reached from this one alone: give an address that all of them reach"
        )


def serves() -> bool:
    """Does Serve run on the cluster already, and listen where it was told to then?"""
    import ray

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def stop_http(sockets: Path) -> None:
    """Our application is gone; Serve too, its port and the `sockets` of its proxy, unless it serves others."""
    from ray import serve

    serve.delete("orchestrator")
    if not serve.status().applications:
        end: Any = serve.shutdown
        end()
        shutil.rmtree(sockets, ignore_errors=True)


def _nodes() -> list[Node]:
    import ray

    told: Any = ray.nodes  # Ray has no types for it
    return alive(told())

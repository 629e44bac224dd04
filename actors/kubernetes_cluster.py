"""The Jobs and Pods of one namespace, through the official client (extra `k8s`).

Every call blocks, has a deadline, and may be made from any thread. Objects are JSON as the API has it: the client's
own models stay out, so that a cluster newer than the client can add what it likes. Errors are three: `ClusterRefused`
will be said again to the same request, `ClusterUnavailable` may not, and `WatchExpired` asks for a new list.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

from actors.kubernetes_config import kubeconfigs, source
from actors.settings import Settings
from orchestrator import __version__
from orchestrator.errors import Refused, Unavailable
from orchestrator.kubernetes_job import CONTAINER, JOB_LABEL, RUN_LABEL, Json

#: seconds to connect, and to wait for the next byte
REQUEST_S = (5, 30)
#: seconds after which the server ends a watch; one that is silent for longer than that is dead
WATCH_S = 60
WATCH_SILENCE_S = (5, 75)
#: Jobs in one page of a list
PAGE = 500
#: statuses that do not condemn the request: too slow, conflict with another writer (of a quota, say), too many
_TRANSIENT = frozenset({408, 409, 429})


class ClusterRefused(Refused):
    """The API does not accept the request, and will not accept it again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.status})"


class ClusterUnavailable(Unavailable):
    """The API was not reached, or not able."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the Kubernetes API is unavailable: {self.why}"


class WatchExpired(Unavailable):
    """The cluster has forgotten what happened since that version: list again."""


class Cluster:
    """Connects when first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._namespace = settings.k8s_namespace

    def create(self, job: Json) -> bool:
        """The Job exists; False when it did so already."""
        try:
            with _translated():
                self._batch.create_namespaced_job(
                    self._namespace, job, _preload_content=False, _request_timeout=REQUEST_S
                )
        except ClusterRefused as refused:
            if refused.status != 409:
                raise
            return False
        return True

    def read(self, name: str) -> Json | None:
        """The Job; None when there is none."""
        try:
            with _translated():
                return _content(
                    self._batch.read_namespaced_job(
                        name, self._namespace, _preload_content=False, _request_timeout=REQUEST_S
                    )
                )
        except ClusterRefused as refused:
            if refused.status != 404:
                raise
            return None

    def delete(self, name: str) -> None:
        """The Job and its pods go; nothing happens when they have gone."""
        try:
            with _translated():
                self._batch.delete_namespaced_job(
                    name,
                    self._namespace,
                    propagation_policy="Background",
                    _preload_content=False,
                    _request_timeout=REQUEST_S,
                )
        except ClusterRefused as refused:
            if refused.status != 404:
                raise

    def jobs(self) -> tuple[list[Json], str]:
        """All Jobs of ours, and the version at which that is so."""
        found: list[Json] = []
        page: Json = {"metadata": {"continue": None}}
        with _translated():
            while True:
                page = _content(
                    self._batch.list_namespaced_job(
                        self._namespace,
                        label_selector=RUN_LABEL,
                        limit=PAGE,
                        _continue=page["metadata"].get("continue"),
                        _preload_content=False,
                        _request_timeout=REQUEST_S,
                    )
                )
                found += page.get("items") or ()
                if not page["metadata"].get("continue"):
                    return found, page["metadata"]["resourceVersion"]

    def changes(self, version: str) -> Iterator[tuple[str, Json, str]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, Job, version) after `version`, until the server ends it."""
        from kubernetes.watch import Watch

        watch: Any = Watch(return_type="object")
        with _translated():
            for event in watch.stream(
                self._batch.list_namespaced_job,
                self._namespace,
                label_selector=RUN_LABEL,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_S,
                _request_timeout=WATCH_SILENCE_S,
            ):
                if event is not None:  # a line that is no JSON: the last one of a cut connection
                    yield event["type"], event["object"], watch.resource_version

    def pod_of(self, job_name: str) -> Json | None:
        """The Job's last pod; None when it has gone, or never came."""
        with _translated():
            pods = _content(
                self._core.list_namespaced_pod(
                    self._namespace,
                    label_selector=f"{JOB_LABEL}={job_name}",
                    _preload_content=False,
                    _request_timeout=REQUEST_S,
                )
            )
        return max(
            pods.get("items") or (), key=lambda pod: pod["metadata"].get("creationTimestamp") or "", default=None
        )

    def log_of(self, pod: Json, limit_bytes: int) -> str:
        """What the task's container has written, the first `limit_bytes` of it."""
        with _translated():
            response = self._core.read_namespaced_pod_log(
                pod["metadata"]["name"],
                self._namespace,
                container=CONTAINER,
                limit_bytes=limit_bytes,
                _preload_content=False,
                _request_timeout=REQUEST_S,
            )
            return cast(bytes, response.data).decode("utf-8", "replace")

    # ── the client ──

    @cached_property
    def _client(self) -> Any:
        from kubernetes import client

        made = client.ApiClient(_configuration(self._settings))
        made.user_agent = f"ray-orchestrator/{__version__}"
        return made

    @cached_property
    def _batch(self) -> Any:
        from kubernetes import client

        return client.BatchV1Api(self._client)

    @cached_property
    def _core(self) -> Any:
        from kubernetes import client

        return client.CoreV1Api(self._client)


def _configuration(settings: Settings) -> Any:
    from kubernetes import client, config

    made = client.Configuration()
    match source(settings, os.environ):
        case "url":
            made.host = settings.k8s_api_url.rstrip("/")
        case "kubeconfig":
            files = os.pathsep.join(str(path) for path in kubeconfigs(settings))
            config.load_kube_config(files, client_configuration=made, persist_config=False)
        case "service account":
            config.load_incluster_config(client_configuration=made)
        case None:
            raise ClusterUnavailable("no cluster is configured")
    made.retries = 0  # callers try again, and know when to stop
    return made


@contextmanager
def _translated() -> Iterator[None]:
    """Whatever the client raises, as one of ours."""
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise _of_api(error) from error
    except (HTTPError, OSError, ConfigException, json.JSONDecodeError) as error:
        raise ClusterUnavailable(f"{type(error).__name__}: {error}") from error


def _of_api(error: Any) -> Refused | Unavailable:
    status, reason, message = error.status or 0, "", error.reason or "no reason given"
    try:
        told = json.loads(error.body)
        reason, message = told["reason"], told["message"]
    except (TypeError, ValueError, KeyError):
        pass  # not from the API itself: a proxy, perhaps, that has its own way to say it
    if status == 410:
        return WatchExpired(message)
    if 400 <= status < 500 and (status not in _TRANSIENT or reason == "AlreadyExists"):
        return ClusterRefused(status, message)
    return ClusterUnavailable(f"{message} ({status})")


def _content(response: Any) -> Json:
    content: Json = json.loads(response.data)
    return content

"""actors.kubernetes_cluster: which cluster it speaks to, and what its errors mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException
from kubernetes.config import incluster_config

from actors import kubernetes_config
from actors.kubernetes_cluster import Cluster, ClusterRefused, ClusterUnavailable, WatchExpired, _configuration, _of_api
from actors.settings import Settings
from orchestrator.kubernetes_job import job_of
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_builders import an_order, name_of


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


def a_kubeconfig(path: Path, server: str) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "s3cret"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def failed(status: int, reason: str = "", message: str = "no") -> ApiException:
    return ApiException(status=status, reason="HTTP says", body=json.dumps({"reason": reason, "message": message}))


def test_a_cluster_is_reached_by_its_kubeconfig(api: KubernetesApi, tmp_path: Path) -> None:
    settings = Settings(kubeconfig=str(a_kubeconfig(tmp_path / "config", api.url)))
    assert Cluster(settings).create(job_of(an_order(), ""))
    assert list(api.jobs) == [name_of()]
    assert _configuration(settings).api_key["BearerToken"] == "Bearer s3cret"


def test_in_a_pod_it_is_reached_by_the_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t0ken")
    (tmp_path / "ca.crt").write_text("ca")
    monkeypatch.setattr(kubernetes_config, "KUBECONFIG", tmp_path / "none")
    monkeypatch.setattr(kubernetes_config, "SERVICE_ACCOUNT_TOKEN", tmp_path / "token")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    made = _configuration(Settings())
    assert (made.host, made.api_key["BearerToken"]) == ("https://10.0.0.1:443", "bearer t0ken")


def test_a_kubeconfig_that_cannot_be_read_may_be_mended(api: KubernetesApi, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("clusters: []")
    cluster = Cluster(Settings(kubeconfig=str(tmp_path / "config")))
    with pytest.raises(ClusterUnavailable, match="ConfigException"):
        cluster.read("a")
    a_kubeconfig(tmp_path / "config", api.url)
    assert cluster.read("a") is None


def test_nobody_there_is_a_silence() -> None:
    with pytest.raises(ClusterUnavailable, match="refused"):
        Cluster(Settings(k8s_api_url="http://127.0.0.1:1")).jobs()


def test_it_says_who_it_is_and_where_it_works(api: KubernetesApi) -> None:
    cluster = Cluster(Settings(k8s_api_url=api.url + "/", k8s_namespace="jobs"))
    assert cluster.create(job_of(an_order(), ""))
    assert not cluster.create(job_of(an_order(), ""))
    cluster.delete(name_of())
    cluster.delete(name_of())
    assert {request.split("/")[5] for request in api.requests} == {"jobs"}
    assert cluster._client.user_agent.startswith("ray-orchestrator/")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (failed(400, "BadRequest"), ClusterRefused, "no (400)"),
        (failed(403, "Forbidden"), ClusterRefused, "no (403)"),
        (failed(409, "AlreadyExists"), ClusterRefused, "no (409)"),
        (failed(422, "Invalid"), ClusterRefused, "no (422)"),
        (failed(409, "Conflict"), ClusterUnavailable, "the Kubernetes API is unavailable: no (409)"),
        (failed(429, "TooManyRequests"), ClusterUnavailable, "the Kubernetes API is unavailable: no (429)"),
        (failed(500), ClusterUnavailable, "the Kubernetes API is unavailable: no (500)"),
        (failed(410, "Expired"), WatchExpired, "no"),
        (ApiException(502, "Bad Gateway", body="<html>"), ClusterUnavailable, "…: Bad Gateway (502)"),
        (ApiException(404, "Not Found", body="[]"), ClusterRefused, "Not Found (404)"),
        (ApiException(), ClusterUnavailable, "…: no reason given (0)"),
    ],
)
def test_errors_are_told_apart_by_whether_another_try_helps(error: Any, kind: type[Exception], text: str) -> None:
    translated = _of_api(error)
    assert type(translated) is kind
    assert str(translated) == text.replace("…", "the Kubernetes API is unavailable")

"""serve_app.cluster: what is refused before a cluster is joined, and what goes along to it."""

from __future__ import annotations

import socket

import pytest

from actors.placement import Node
from actors.settings import Settings
from orchestrator.errors import Invalid, Unavailable
from serve_app import cluster

HEAD = Node("h", "10.0.0.1", 0, control=True, head=True)
NEAR, FAR = Node("n", "10.0.0.1", 2, control=False, head=False), Node("f", "10.0.0.2", 2, control=False, head=False)


def joining(redis_url: str = "") -> Settings:
    return Settings(ray_address="10.0.0.1:6379", redis_url=redis_url, home="/h")


@pytest.mark.parametrize(
    "address", ["ray://10.0.0.1:10001", "http://10.0.0.1:8265", "10.0.0.1:gcs", "10.0.0.1:99999", ".:6379"]
)
def test_what_is_no_address_of_a_cluster_is_refused_at_once(address: str) -> None:
    with pytest.raises(Invalid, match="give HOST:PORT of the cluster's head"):
        cluster.reach(address)


def test_an_address_where_nobody_listens_is_told_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"no Ray cluster answers at {where} .Connection refused.; start one"):
            cluster.reach(where)


def test_an_address_where_somebody_listens_and_auto_are_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster.reach(f"127.0.0.1:{server.getsockname()[1]}")
    cluster.reach("auto")


def test_the_embedded_journal_does_for_nodes_of_one_host() -> None:
    cluster.check_journal(joining(), [HEAD, NEAR])


@pytest.mark.parametrize(
    ("redis_url", "why"),
    [
        ("", "the embedded journal is reached from this one alone: give --redis-url"),
        ("redis://localhost:6379", "give an address that all of them reach"),
        ("redis://:pw@127.0.0.1:6379/0", "give an address that all of them reach"),
        ("unix://:pw@/run/redis.sock", "give an address that all of them reach"),
    ],
)
def test_several_hosts_need_a_journal_that_all_of_them_reach(redis_url: str, why: str) -> None:
    with pytest.raises(Invalid, match=r"2 hosts \(10\.0\.0\.1, 10\.0\.0\.2\)") as refused:
        cluster.check_journal(joining(redis_url), [HEAD, NEAR, FAR])
    assert why in str(refused.value)
    cluster.check_journal(joining("rediss://:pw@redis.internal:6379"), [HEAD, NEAR, FAR])


def test_the_command_runs_on_the_head_where_http_listens() -> None:
    cluster.check_head("h", [HEAD, FAR])
    with pytest.raises(Invalid, match=r"run this command there, on 10\.0\.0\.1"):
        cluster.check_head("f", [HEAD, FAR])


def test_another_version_of_ray_is_told_with_both_versions() -> None:
    raised = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.11.4\nThis ..."
    )
    told = cluster.explained("h:1", raised)
    assert isinstance(told, Invalid)
    assert "Ray: 2.59.0 Python: 3.11.4" in str(told)
    assert "install the same here" in str(told)


def test_a_cluster_that_lets_nobody_in_may_want_its_token() -> None:
    told = cluster.explained("h:1", ConnectionError("Failed to connect to Ray cluster at h:1\nmore"))
    assert isinstance(told, Unavailable)
    assert "Failed to connect to Ray cluster at h:1. Is it" in str(told)
    assert "RAY_AUTH_TOKEN_PATH" in str(told)


def test_processes_there_get_what_they_need_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_LOG_LEVEL", "INFO")
    monkeypatch.setenv("CLIENT_TOKEN", "secret-1")
    monkeypatch.setenv("ORCHESTRATOR_SECRET_KEY", "secret-2")
    told = cluster.environment(joining("redis://:secret-3@r:1"), {"RAY_SERVE_ENABLE_HA_PROXY": "1"})
    assert told["ORCHESTRATOR_HOME"] == "/h"
    assert told["ORCHESTRATOR_LOG_LEVEL"] == "INFO"
    assert told["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == "serve_app.edge:middlewares"
    assert told["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert "secret" not in str(told)


def test_two_orchestrators_on_one_cluster_are_told_apart_by_home_and_journal() -> None:
    one = Settings(home="/h", journal_url="redis://:pw@r:1")
    others = [Settings(home="/i", journal_url="redis://:pw@r:1"), Settings(home="/h", journal_url="redis://:pw@r:2")]
    assert one.fingerprint == Settings(home="/h", journal_url="redis://:pw@r:1", port=9000).fingerprint
    assert one.fingerprint not in {other.fingerprint for other in others}
    assert "pw" not in one.fingerprint

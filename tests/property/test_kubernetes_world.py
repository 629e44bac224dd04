"""Worlds of chance with a Kubernetes cluster: no attempt is lost or doubled, whoever is killed."""

from __future__ import annotations

import pytest

from actors import kubernetes_seat
from tests.world_kubernetes import KubernetesWorld


@pytest.fixture(autouse=True)
def a_cluster_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_seat, "configured", lambda _: True)


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_whatever_happens_every_run_ends_and_every_job_counts_once(first: int) -> None:
    for seed in range(first, first + 10):
        KubernetesWorld(seed).play()

"""actors.kubernetes_config: is there a cluster, and which."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from actors import kubernetes_config
from actors.kubernetes_config import configured, kubeconfigs, source
from actors.settings import Settings, read_settings

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.fixture(autouse=True)
def nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a kubeconfig, outside of any cluster."""
    monkeypatch.setattr(kubernetes_config, "KUBECONFIG", tmp_path / "none")
    monkeypatch.setattr(kubernetes_config, "SERVICE_ACCOUNT_TOKEN", tmp_path / "token")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def a_file(path: Path) -> Path:
    path.write_text("x")
    return path


def test_without_anything_no_cluster_is_configured() -> None:
    assert not configured(Settings())


def test_an_address_is_enough() -> None:
    assert configured(Settings(k8s_api_url="http://127.0.0.1:8001"))


def test_without_the_official_client_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(kubernetes_config, "find_spec", lambda name: None if name == "kubernetes" else find(name))
    assert not configured(Settings(k8s_api_url="http://127.0.0.1:8001"))


def test_a_kubeconfig_counts_when_one_of_its_files_is_there(tmp_path: Path) -> None:
    there = a_file(tmp_path / "there")
    assert source(Settings(kubeconfig=f"{tmp_path / 'absent'}:{there}"), {}) == "kubeconfig"
    assert source(Settings(kubeconfig=str(tmp_path / "absent")), {}) is None


def test_the_default_kubeconfig_counts_unless_others_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_config, "KUBECONFIG", a_file(tmp_path / "config"))
    assert source(Settings(), {}) == "kubeconfig"
    assert source(Settings(kubeconfig=str(tmp_path / "absent")), {}) is None


def test_a_pod_with_a_service_account_is_in_its_cluster(tmp_path: Path) -> None:
    assert source(Settings(), IN_POD) is None
    a_file(tmp_path / "token")
    assert source(Settings(), IN_POD) == "service account"
    assert source(Settings(), {}) is None


def test_the_address_goes_before_the_kubeconfig_and_that_before_the_service_account(tmp_path: Path) -> None:
    a_file(tmp_path / "token")
    named = str(a_file(tmp_path / "named"))
    assert source(Settings(k8s_api_url="http://x", kubeconfig=named), IN_POD) == "url"
    assert source(Settings(kubeconfig=named), IN_POD) == "kubeconfig"


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "ORCHESTRATOR_K8S_API_URL": "http://127.0.0.1:8001",
        "ORCHESTRATOR_K8S_NAMESPACE": "jobs",
        "ORCHESTRATOR_K8S_IMAGE": "ours:1",
        "KUBECONFIG": f"~/a:{tmp_path}/b",
    }
    settings = read_settings(environ)
    assert (settings.k8s_api_url, settings.k8s_namespace, settings.k8s_image) == (
        "http://127.0.0.1:8001",
        "jobs",
        "ours:1",
    )
    assert kubeconfigs(settings) == [Path("~/a").expanduser(), tmp_path / "b"]
    assert (Settings().k8s_namespace, Settings().k8s_image) == ("default", "")


def test_asking_does_not_import_the_client() -> None:
    code = """
import sys
from actors.kubernetes_config import configured
from actors.settings import Settings
configured(Settings(k8s_api_url="http://x"))
import actors.kubernetes_actor, actors.kubernetes_seat
print("kubernetes" in sys.modules, "ray" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]

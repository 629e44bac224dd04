"""The manifest for KubeRay, the image it names, and the application that Serve builds from it.

The custom resource's own schema is a megabyte of Kubernetes' pod templates. So the fields of KubeRay that are used are
listed here, from `ray-operator/apis/ray/v1/{rayservice,raycluster}_types.go` of github.com/ray-project/kuberay (1.5.1
and later), and the pods are held to Kubernetes' schema itself.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from ray.scripts.scripts import start as ray_start
from ray.serve.schema import ServeDeploySchema

from actors.settings import Settings
from serve_app.edge import serve_environment
from tests import command_lines, ray_names
from tests.kubernetes_api import RELEASE

ROOT = Path(__file__).parents[2]
DOCUMENTS = list(yaml.safe_load_all((ROOT / "deploy/kuberay/rayservice.yaml").read_text(encoding="utf-8")))
CLAIM, SERVICE = DOCUMENTS
SPEC: dict[str, Any] = SERVICE["spec"]
CLUSTER: dict[str, Any] = SPEC["rayClusterConfig"]
GROUPS: dict[str, dict[str, Any]] = {
    "head": CLUSTER["headGroupSpec"],
    **{group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]},
}
PODS: dict[str, dict[str, Any]] = {name: group["template"]["spec"] for name, group in GROUPS.items()}
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs/clusters-kubernetes.md").read_text(encoding="utf-8")
each_pod = pytest.mark.parametrize("name", list(PODS))

#: field -> its kind, or those of the fields in it
_GROUP = {"labels": dict, "rayStartParams": dict, "template": {"spec": dict}}
_WORKERS = {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, **_GROUP}
_SERVICE = {
    "upgradeStrategy": {"type": str},
    "rayClusterDeletionDelaySeconds": int,
    "serveConfigV2": str,
    "rayClusterConfig": {
        "rayVersion": str,
        "authOptions": {"mode": str},
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": {
            "version": str,
            "idleTimeoutSeconds": int,
            "upscalingMode": str,
            "resources": dict,
            "securityContext": dict,
        },
        "gcsFaultToleranceOptions": {"redisAddress": str, "redisPassword": {"valueFrom": dict}},
        "headGroupSpec": _GROUP,
        "workerGroupSpecs": [_WORKERS],
    },
}


def shaped(found: Any, kind: Any, at: str = "spec") -> None:
    """`found` has those fields and no others."""
    if isinstance(kind, list):
        assert isinstance(found, list), at
        for number, each in enumerate(found):
            shaped(each, kind[0], f"{at}[{number}]")
    elif isinstance(kind, dict):
        assert isinstance(found, dict), at
        assert found.keys() <= kind.keys(), f"{at} has {found.keys() - kind.keys()}"
        for field, value in found.items():
            shaped(value, kind[field], f"{at}.{field}")
    else:
        assert type(found) is kind, f"{at}: {found!r}"


def container(name: str) -> dict[str, Any]:
    (only,) = PODS[name]["containers"]
    assert isinstance(only, dict)
    return only


def variables(name: str) -> dict[str, str]:
    """Environment of a pod; of secrets, where they are."""
    return {each["name"]: each.get("value") or secret_of(each["valueFrom"]) for each in container(name)["env"]}


def secret_of(source: dict[str, Any]) -> str:
    return f"{source['secretKeyRef']['name']}/{source['secretKeyRef']['key']}"


# ---------------------------------------------------------------- the manifest


def test_kuberay_knows_every_field() -> None:
    assert (SERVICE["apiVersion"], SERVICE["kind"]) == ("ray.io/v1", "RayService")
    shaped(SPEC, _SERVICE)
    assert SPEC["upgradeStrategy"]["type"] in ("NewCluster", "None")
    assert CLUSTER["authOptions"]["mode"] == "token"
    assert CLUSTER["autoscalerOptions"]["upscalingMode"] in ("Default", "Aggressive", "Conservative")
    for group in GROUPS.values():
        assert all(isinstance(value, str) for value in (group["rayStartParams"] | group["labels"]).values())


def test_a_field_that_kuberay_does_not_know_is_found() -> None:
    with pytest.raises(AssertionError, match="rayVersoin"):
        shaped(SPEC | {"rayClusterConfig": CLUSTER | {"rayVersoin": "2"}}, _SERVICE)


@each_pod
def test_kubernetes_takes_the_pods(name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": PODS[name]}
    kubernetes_validate.validate(pod, RELEASE, strict=True)


def test_kubernetes_takes_the_claim_that_the_pods_mount() -> None:
    kubernetes_validate.validate(CLAIM, RELEASE, strict=True)
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    for name, pod in PODS.items():
        claims = {each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "emptyDir" not in each}
        assert claims == {CLAIM["metadata"]["name"]}, name
        mounts = {each["name"]: each["mountPath"] for each in container(name)["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        assert mounts["home"] == variables(name)["ORCHESTRATOR_HOME"]


def test_every_start_parameter_is_an_option_of_ray_start() -> None:
    known = {option.removeprefix("--") for parameter in ray_start.params for option in parameter.opts}
    assert {key for group in GROUPS.values() for key in group["rayStartParams"]} <= known


def test_the_head_is_for_control_and_runs_no_tasks() -> None:
    assert GROUPS["head"]["rayStartParams"]["num-cpus"] == "0"
    roles = {name: group["labels"]["orc.role"] for name, group in GROUPS.items()}
    assert roles == {"head": "control", "worker": "worker", "spot": "worker"}


def test_workers_scale_and_spot_ones_to_zero() -> None:
    assert CLUSTER["enableInTreeAutoscaling"]
    for group in CLUSTER["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] < group["maxReplicas"]
    assert GROUPS["spot"]["minReplicas"] == 0


@each_pod
def test_every_pod_says_whether_it_lives_and_whether_it_is_ready(name: str) -> None:
    pod = container(name)
    asked = {kind: " ".join(pod[f"{kind}Probe"]["exec"]["command"]) for kind in ("liveness", "readiness")}
    assert all("/api/local_raylet_healthz" in each for each in asked.values())
    assert ("/-/healthz" in asked["readiness"]) == (name != "head")
    assert "/-/healthz" not in asked["liveness"], "Ray's processes must not be ended because of HTTP"
    for kind in ("liveness", "readiness"):
        assert pod[f"{kind}Probe"]["timeoutSeconds"] >= 2 * 4, "each wget may take four seconds"


@each_pod
def test_no_pod_runs_as_root_or_may_become_it(name: str) -> None:
    assert PODS[name]["securityContext"]["runAsNonRoot"] is True
    assert container(name)["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


# ---------------------------------------------------------------- its environment


def test_all_pods_have_the_same_environment() -> None:
    assert variables("head") == variables("worker") == variables("spot")


def test_every_variable_is_read_somewhere() -> None:
    given = variables("head")
    settings = {name for each in fields(Settings) for name in each.metadata["names"]}
    sources = "".join(file.read_text() for folder in ("actors", "serve_app") for file in (ROOT / folder).glob("*.py"))
    assert ray_names.unread(given) == []
    for name in given:
        assert name.startswith("RAY_") or name in settings or f'"{name}"' in sources, name
    assert serve_environment().items() <= given.items()


def test_what_is_secret_is_in_secrets_that_the_guide_makes() -> None:
    secret = {name: value for name, value in variables("head").items() if "/" in value and not value.startswith("/")}
    assert set(secret) >= {"REDIS_URL", "ORCHESTRATOR_SECRET_KEY", "ORCHESTRATOR_ADMIN_TOKEN", "GLOBAL_WORKER_TOKEN"}
    named = {*secret.values(), secret_of(CLUSTER["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"])}
    named.discard(variables("head")["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"])
    (made,) = re.findall(r"kubectl create secret generic (\w+)((?:[^\n]*\\\n)*[^\n]*)", GUIDE)
    keys = set(re.findall(r"--from-literal=([a-z-]+)=", made[1]))
    assert {f"{made[0]}/{key}" for key in keys} == named


def test_the_journal_is_not_on_the_redis_of_ray() -> None:
    assert variables("head")["REDIS_URL"] == "orchestrator/redis-url"
    assert CLUSTER["gcsFaultToleranceOptions"]["redisAddress"] == "redis://gcs-redis:6379"


# ---------------------------------------------------------------- what Serve is told


def test_serve_takes_its_config() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(SPEC["serveConfigV2"]))
    (application,) = config.applications
    assert (application.name, application.route_prefix, application.args) == ("orchestrator", "/", {})
    module, _, name = application.import_path.partition(":")
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
    assert (module, name) == ("serve_app.serve_config", "app")
    assert config.http_options.port == 8000
    assert all(port["containerPort"] == 8000 for port in container("worker")["ports"] if port["name"] == "serve")


# ---------------------------------------------------------------- the image


def test_all_pods_run_the_image_of_the_dockerfile_with_this_ray() -> None:
    (built,) = re.findall(r"docker build -f deploy/docker/Dockerfile -t (\S+) \.", DOCKERFILE)
    assert {container(name)["image"] for name in PODS} == {built}
    assert CLUSTER["rayVersion"] == ray.__version__
    assert f"ray[default,serve]=={ray.__version__}" in DOCKERFILE


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest), with lines that go on put together."""
    plain = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ")
    return [(words[0], words[1]) for line in plain.splitlines() if (words := line.split(None, 1))]


def test_the_image_is_small_and_its_user_is_not_root() -> None:
    words = [word for word, _ in instructions()]
    assert words.count("FROM") == 2, "what builds is not what runs"
    assert all(":" in rest and "latest" not in rest for word, rest in instructions() if word == "FROM")
    last = words[len(words) - words[::-1].index("FROM") :]
    assert last.index("COPY") < last.index("USER") < last.index("ENTRYPOINT")
    (user,) = [rest for word, rest in instructions() if word == "USER"]
    assert int(user) == PODS["head"]["securityContext"]["runAsUser"]
    for word, rest in instructions():
        if "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists/*" in rest
        if "pip install" in rest:
            assert "--no-cache-dir" in rest
        assert word != "ADD"


def test_the_image_has_what_kubernetes_asks_with_and_no_secret() -> None:
    assert "wget" in DOCKERFILE
    assert not re.search(r"TOKEN|SECRET|PASSWORD", DOCKERFILE)
    (command,) = [rest for word, rest in instructions() if word == "CMD"]
    command_lines.check(" ".join(yaml.safe_load(command)))


def test_what_is_copied_into_the_image_is_what_the_wheel_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert ignored[0] == "*"
    assert kept == {"actors", "orchestrator", "serve_app", "LICENSE", "README.md", "pyproject.toml"}
    assert all((ROOT / name).exists() for name in kept)

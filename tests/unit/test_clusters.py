"""The cluster files for `ray up`: Ray takes them, their commands exist, and nothing of them is open to strangers."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start

from serve_app.edge import serve_environment
from tests import command_lines, ray_names

ROOT = Path(__file__).parents[2]
FILES = {name: ROOT / name for name in ("cluster.yaml", "examples/clusters/gcp.yaml", "examples/clusters/local.yaml")}
TEXTS = {name: file.read_text(encoding="utf-8") for name, file in FILES.items()}
CONFIGS: dict[str, dict[str, Any]] = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
CLOUDS = [name for name, config in CONFIGS.items() if config["provider"]["type"] != "local"]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
each_file = pytest.mark.parametrize("name", list(FILES))


def scripts(name: str, *kinds: str) -> str:
    return "\n".join(command for kind in kinds for command in CONFIGS[name].get(kind, []))


def every_script(name: str) -> str:
    return scripts(name, *(key for key in CONFIGS[name] if key.endswith("_commands")))


def environment(name: str) -> dict[str, str]:
    """What every node's Ray is started with."""
    (text,) = re.findall(r"<<'END'\n(.*?)\nEND\n", scripts(name, "setup_commands"), re.S)
    return dict(line.split("=", 1) for line in text.splitlines())


def options(name: str, kind: str, program: str) -> dict[str, str]:
    """Options of the one command line of `program` among the commands of that kind."""
    found = [
        line for line in command_lines.in_shell(scripts(name, kind), program.split()[0]) if line.startswith(program)
    ]
    assert len(found) == 1, found
    words = shlex.split(found[0])
    pairs = zip(words, [*words[1:], ""], strict=True)
    given = [(word, value) if "=" not in word else word.split("=", 1) for word, value in pairs if word.startswith("--")]
    return {option: "" if value.startswith("--") else value for option, value in given}


# ---------------------------------------------------------------- Ray's own check


@each_file
def test_ray_takes_the_file(name: str) -> None:
    validate_config(prepare_config(copy.deepcopy(CONFIGS[name])))


@pytest.mark.parametrize("wrong", [{"max_worker": 3}, {"head_node_type": "hed"}, {"max_workers": 0}])
def test_ray_does_not_take_just_anything(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"max_worker|head_node_type|min_workers"):
        validate_config(prepare_config(copy.deepcopy(CONFIGS["cluster.yaml"]) | wrong))


def test_there_is_one_for_aws_one_for_gcp_and_one_for_machines_of_ones_own() -> None:
    assert {config["provider"]["type"] for config in CONFIGS.values()} == {"aws", "gcp", "local"}


# ---------------------------------------------------------------- its words


@each_file
def test_every_command_of_ours_parses(name: str) -> None:
    lines = list(command_lines.in_shell(every_script(name), "orchestrator"))
    assert [line.split()[1] for line in lines] == ["down", "up"], "what a former head left ends first"
    for line in lines:
        command_lines.check(line)


@each_file
def test_every_option_of_ray_start_exists(name: str) -> None:
    known = {option for parameter in ray_start.params for option in parameter.opts}
    head = options(name, "head_start_ray_commands", "ray start")
    worker = options(name, "worker_start_ray_commands", "ray start")
    assert set(head) | set(worker) <= known
    assert head["--port"] == worker["--address"].rpartition(":")[2]


@each_file
def test_no_version_is_another_than_that_of_this_checkout(name: str) -> None:
    text = TEXTS[name]
    pinned = re.findall(r"ray\[default,serve\]==([\d.]+)|rayproject/ray:([\d.]+)-py", text)
    assert {one or other for one, other in pinned} == {ray.__version__}
    assert re.findall(r"ray-orchestrator==([\d.]+)", text) == [VERSION]


@each_file
def test_every_variable_is_known_to_who_reads_it(name: str) -> None:
    given = environment(name)
    assert serve_environment().items() <= given.items()
    assert ray_names.unread([*given, *re.findall(r"\b(RAY_\w+)=", every_script(name))]) == []


def test_a_variable_that_ray_does_not_read_is_found() -> None:
    wrong = ["RAY_gcs_storag_path", "RAY_SERVE_ENABLE_HAPROXY", "RAY_AUTHMODE"]
    assert ray_names.unread(["RAY_gcs_storage_path", "PATH", *wrong]) == wrong


def test_the_nodes_of_all_three_start_with_the_same_environment() -> None:
    own = {"PATH", "RAY_SERVE_HAPROXY_MAXCONN"}
    found = [{key: value for key, value in environment(name).items() if key not in own} for name in FILES]
    assert found[0] == found[1] == found[2]


# ---------------------------------------------------------------- who does what


@each_file
def test_the_head_is_for_control_and_runs_no_tasks(name: str) -> None:
    start = options(name, "head_start_ray_commands", "ray start")
    assert (start["--num-cpus"], start["--labels"]) == ("0", "orc.role=control")
    assert "RAY_gcs_storage=rocksdb RAY_gcs_storage_path=" in scripts(name, "head_start_ray_commands")


@pytest.mark.parametrize("name", CLOUDS)
def test_nodes_have_the_label_of_their_role_and_spot_ones_need_not_be_there(name: str) -> None:
    types = CONFIGS[name]["available_node_types"]
    roles = {kind: each["labels"]["orc.role"] for kind, each in types.items()}
    assert roles == {"head": "control", "worker": "worker", "spot": "worker"}
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["spot"]["min_workers"] == 0
    assert re.search(r"MarketType: spot|preemptible: true", TEXTS[name])
    assert sum(each.get("max_workers", 0) for each in types.values()) == CONFIGS[name]["max_workers"]


# ---------------------------------------------------------------- who gets in


@each_file
def test_ray_wants_its_token_and_shows_its_dashboard_to_this_machine_only(name: str) -> None:
    assert environment(name)["RAY_AUTH_MODE"] == "token"
    assert options(name, "head_start_ray_commands", "ray start")["--dashboard-host"] == "127.0.0.1"


@each_file
def test_secrets_are_in_files_that_only_their_owner_reads_and_on_no_command_line(name: str) -> None:
    mounted = CONFIGS[name]["file_mounts"]
    assert set(mounted.values()) == {"~/.ray/auth_token", "~/.orchestrator/cluster.env"}
    assert "chmod 600 ~/.ray/auth_token ~/orchestrator.env" in scripts(name, "setup_commands")
    assert "redis-url" not in every_script(name), "what is on a command line is seen by everybody on the machine"
    assert not re.search(r"(TOKEN|PASSWORD|SECRET|REDIS_URL)\w*=", every_script(name))


@each_file
def test_it_listens_beyond_the_machine_where_nobody_is_anonymous(name: str) -> None:
    up = options(name, "head_start_ray_commands", "orchestrator up")
    assert (up["--address"], up["--host"]) == ("auto", "0.0.0.0")
    assert "ALLOW_ANONYMOUS" not in TEXTS[name]

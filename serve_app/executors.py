"""How tasks of a plan are carried out: executors by name, as the operator has them in a YAML file.

    reviewer: {kind: command, argv: [tool, review, "{task_id}", "{description}"], timeout_s: 600, cwd: /srv/app}
    sleeper:  {kind: task, type: core.sleep, params: {seconds: 2}}
    builder:  {kind: task, type: python, entrypoint: "build:step", params: {what: "{description}"}}
    echo                                                    built in: writes the description as finding

`{plan}`, `{plan_path}`, `{task_id}`, `{description}` and `{phase}` are filled in, in each text on its own; other braces
stay. The file is read at each start of an instance. What it says is trusted, what a plan says is not: its text never
becomes part of a shell line (hand it to `bash` in `env`), and templates in it are not filled in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.definition import IN_CLUSTER_TYPES
from orchestrator.errors import Invalid
from orchestrator.plan_file import PlanDocument, PlanTask
from orchestrator.plan_graph import Executor

ECHO = "echo"
_PLACEHOLDER = re.compile(r"\{(plan|plan_path|task_id|description|phase)\}")
_KEYS = {
    "command": frozenset({"kind", "argv", "timeout_s", "cwd"}),
    "task": frozenset({"kind", "type", "params", "entrypoint", "timeout_s"}),
}


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What placeholders tell of the plan."""

    name: str
    #: absolute
    path: Path
    document: PlanDocument


def executor_for(name: str, file: str, plan: PlanFacts, stuck_s: float) -> Executor:
    """The executor of that name for the tasks of `plan`. Blocks. Raises Invalid."""
    described = _read(file) if file else {}
    if name in described:
        return _made(name, described[name], plan, stuck_s)
    if name == ECHO:
        return Executor(ECHO, "core.text", lambda task: {"text": task.description}, stuck_s)
    raise Invalid(f"Unknown executor '{name}'")


def _read(file: str) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"ORCHESTRATOR_EXECUTORS_FILE cannot be read: {' '.join(str(error).split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise Invalid("ORCHESTRATOR_EXECUTORS_FILE must map names to executors")
    return found


def _made(name: str, described: Any, plan: PlanFacts, stuck_s: float) -> Executor:
    kind = described.get("kind") if isinstance(described, dict) else None
    if kind not in _KEYS:
        raise _wrong(name, "kind must be 'command' or 'task'")
    if unknown := sorted(str(key) for key in described.keys() - _KEYS[kind]):
        raise _wrong(name, f"unknown key {unknown[0]!r}")
    timeout_s = described.get("timeout_s", stuck_s)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or timeout_s <= 0:
        raise _wrong(name, "timeout_s must be a number of seconds above 0")
    made = _command(name, described, plan) if kind == "command" else _task(name, described, plan)
    return Executor(name, made.type, made.params, min(float(timeout_s), stuck_s), made.entrypoint)


def _command(name: str, described: Mapping[str, Any], plan: PlanFacts) -> Executor:
    argv, folder = described.get("argv"), described.get("cwd", str(plan.path.parent))
    if not isinstance(argv, list) or not argv or not all(isinstance(each, str) for each in argv):
        raise _wrong(name, "argv must be a list of texts")
    if not isinstance(folder, str):
        raise _wrong(name, "cwd must be a folder")
    return Executor(name, "core.command", _filler({"argv": argv, "cwd": folder}, plan))


def _task(name: str, described: Mapping[str, Any], plan: PlanFacts) -> Executor:
    kind, params, entrypoint = described.get("type"), described.get("params", {}), described.get("entrypoint")
    if kind not in IN_CLUSTER_TYPES:
        raise _wrong(name, f"no worker runs tasks of type {kind!r}")
    if not isinstance(params, dict):
        raise _wrong(name, "params must be an object")
    if (kind == "python") != isinstance(entrypoint, str):
        raise _wrong(name, "an entrypoint belongs to type 'python', and only there")
    if kind == "bash" and _PLACEHOLDER.search(str(params.get("command"))):
        raise _wrong(name, "a shell line must not hold placeholders; put them into params.env, or use kind 'command'")
    fill = _filler(params, plan, lambda text: text.replace("{{", "{ {"))
    return Executor(name, kind, fill, entrypoint=entrypoint)


def _filler(
    params: Mapping[str, Any], plan: PlanFacts, tame: Callable[[str], str] = str
) -> Callable[[PlanTask], dict[str, Any]]:
    """What gives the params for one task; `tame` is applied to each text that comes from the plan."""
    phases = {phase.number: phase.name for phase in plan.document.phases}
    shared = {"plan": plan.name, "plan_path": str(plan.path)}

    def fill(task: PlanTask) -> dict[str, Any]:
        told = {"task_id": task.task_id, "description": task.description, "phase": phases[task.phase_number]}
        texts = {key: tame(text) for key, text in (shared | told).items()}
        return {key: _filled(value, texts) for key, value in params.items()}

    return fill


def _filled(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: texts[found[1]], value)
    if isinstance(value, dict):
        return {key: _filled(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, texts) for item in value]
    return value


def _wrong(name: str, why: str) -> Invalid:
    return Invalid(f"Executor '{name}': {why}")

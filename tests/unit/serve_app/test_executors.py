"""serve_app.executors: names to ways of carrying out tasks of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Invalid
from orchestrator.plan_file import parse
from orchestrator.plan_graph import Executor, compile_plan
from serve_app.executors import PlanFacts, executor_for

PLAN = "# P\n## Phase 1: Setup\n- [ ] 1.1 Say {plan} and {{ from }} (depends: )\n"
FILE = """
review: {kind: command, argv: [tool, "{plan}", "{task_id}: {description}", "{other}"], timeout_s: 60, cwd: /srv}
here: {kind: command, argv: ["ls", "{plan_path}"]}
sleeper: {kind: task, type: core.sleep, params: {seconds: 2, deep: [{what: "{phase}"}]}}
builder: {kind: task, type: python, entrypoint: "build:step", params: {what: "{description}"}}
echo: {kind: task, type: core.noop}
"""


def made(tmp_path: Path, name: str, file: str = FILE, stuck_s: float = 1800.0) -> Executor:
    path = tmp_path / "executors.yaml"
    path.write_text(file)
    facts = PlanFacts("demo", tmp_path / "docs" / "plans" / "demo.md", parse(PLAN, "demo"))
    return executor_for(name, str(path), facts, stuck_s)


def params(executor: Executor) -> dict[str, Any]:
    return executor.params(parse(PLAN, "demo").tasks[0])


def test_a_command_is_filled_in_argument_by_argument(tmp_path: Path) -> None:
    executor = made(tmp_path, "review")
    assert (executor.type, executor.timeout_s) == ("core.command", 60.0)
    told = "1.1: Say {plan} and {{ from }} (depends: )"
    assert params(executor) == {"argv": ["tool", "demo", told, "{other}"], "cwd": "/srv"}


def test_a_command_runs_in_the_folder_of_the_plan_unless_told(tmp_path: Path) -> None:
    folder = tmp_path / "docs" / "plans"
    assert params(made(tmp_path, "here")) == {"argv": ["ls", str(folder / "demo.md")], "cwd": str(folder)}


def test_a_task_gets_its_params_filled_in_at_any_depth_and_no_templates_of_the_plan(tmp_path: Path) -> None:
    assert params(made(tmp_path, "sleeper")) == {"seconds": 2, "deep": [{"what": "Phase 1: Setup"}]}
    builder = made(tmp_path, "builder")
    assert (builder.type, builder.entrypoint) == ("python", "build:step")
    assert params(builder) == {"what": "Say {plan} and { { from }} (depends: )"}
    definition = compile_plan(parse(PLAN, "demo"), builder, dag_id="@plan/demo", owner="")
    assert definition.tasks[0].entrypoint == "build:step"


def test_echo_is_built_in_and_can_be_replaced(tmp_path: Path) -> None:
    assert made(tmp_path, "echo", "").type == "core.text"
    assert params(made(tmp_path, "echo", "")) == {"text": "Say {plan} and {{ from }} (depends: )"}
    assert made(tmp_path, "echo").type == "core.noop"


def test_a_task_never_takes_longer_than_what_counts_as_stuck(tmp_path: Path) -> None:
    assert made(tmp_path, "review", stuck_s=30.0).timeout_s == 30.0
    assert made(tmp_path, "echo", "", stuck_s=30.0).timeout_s == 30.0


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("x: 1", "kind must be 'command' or 'task'"),
        ("x: {kind: shell}", "kind must be 'command' or 'task'"),
        ("x: {kind: command}", "argv must be a list of texts"),
        ("x: {kind: command, argv: [1]}", "argv must be a list of texts"),
        ("x: {kind: command, argv: [a], shell: true}", "unknown key 'shell'"),
        ("x: {kind: command, argv: [a], timeout_s: -1}", "timeout_s must be a number"),
        ("x: {kind: task, type: nobody}", "no worker runs tasks of type 'nobody'"),
        ("x: {kind: task, type: core.noop, params: []}", "params must be an object"),
        ("x: {kind: task, type: python}", "an entrypoint belongs to type 'python'"),
        ("x: {kind: task, type: core.noop, entrypoint: 'a:b'}", "an entrypoint belongs to type 'python'"),
        ("x: {kind: task, type: bash, params: {command: 'echo {description}'}}", "must not hold placeholders"),
        ("[1]", "must map names to executors"),
        ("x: [", "cannot be read"),
        ("y: {kind: task, type: core.noop}", "Unknown executor 'x'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, file: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        made(tmp_path, "x", file)


def test_a_file_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    facts = PlanFacts("demo", tmp_path / "demo.md", parse(PLAN, "demo"))
    with pytest.raises(Invalid, match="cannot be read"):
        executor_for("echo", str(tmp_path / "none.yaml"), facts, 1800.0)

"""Plan files for tests: the contract's demo, and short plans from a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.definition import Definition, TaskSpec
from orchestrator.plan_file import PlanDocument, PlanTask, parse
from orchestrator.plan_graph import Executor, compile_plan

#: contracts/instances.md, section 6
DEMO = """\
# Implementation Plan: Demo
## Phase 1: Setup
**Execution Note:** Tasks 1.2-1.3 are [SEQUENTIAL] - same file
- [ ] 1.1 Create the folder
- [x] 1.2 Already done
- [ ] 1.3 Write the file (depends: 1.1, 1.2)
## Phase 2: Check
**Execution Note:** Phases 1-2 are [PARALLEL] - independent
- [ ] 2.1 Run the checks (depends: 1.3)
**VERIFY Phase 2:** all green (non-blocking)
"""


def params(task: PlanTask) -> dict[str, Any]:
    """What the test executor is told."""
    return {"task_id": task.task_id, "description": task.description}


ECHO = Executor("echo", "core.echo", params)


def plan(text: str, title: str = "untitled") -> PlanDocument:
    """The plan in `text`."""
    return parse(text, title)


def phases(*tasks: str, **notes: str) -> str:
    """A plan of one phase per argument, tasks separated by `;`. `phases("1.1 a; 1.2 b", "2.1 c")`."""
    lines = list(notes.values())
    for number, listed in enumerate(tasks, 1):
        lines += [f"## Phase {number}: P{number}", *(f"- [ ] {task.strip()}" for task in listed.split(";") if task)]
    return "\n".join(lines)


def compiled(text: str, **arguments: int) -> Definition:
    """The definition of the plan in `text`."""
    return compile_plan(plan(text), ECHO, dag_id="demo", owner="team", **arguments)


def specs(text: str) -> Mapping[str, TaskSpec]:
    """The core's tasks of the plan in `text`, by id."""
    return {spec.id: spec for spec in compiled(text).tasks}

"""Laws of plan files: any text is a plan, gates mean what the contract says, and a status file loses nothing.

The oracles are written from section 6 of the instances contract, task by task, without any of the shortcuts that
`plan_graph` takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise
from typing import Any

import msgspec
import networkx as nx
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from orchestrator import plan_status
from orchestrator.definition import Definition
from orchestrator.errors import Invalid
from orchestrator.graph import check
from orchestrator.plan_entry import Completed, Failed, Reset, Retried, Skipped, Started, TriedAgain
from orchestrator.plan_file import PlanDocument, PlanTask, numeric_order, parse, run_order
from orchestrator.plan_progress import totals
from orchestrator.plan_status import Change, PlanStatus, RunEnded, RunStarted
from orchestrator.spec_form import TASK_ID
from tests.plans import DEMO, compiled, plan

#: no deadline: two cores are shared with whatever else is tested at the time
LAWS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# ── texts ──

PIECES = [
    "# Implementation Plan: ",
    "## Phase ",
    "- [ ] ",
    "- [x] ",
    "**Execution Note:** ",
    "Tasks ",
    "Phases ",
    " are [SEQUENTIAL] - ",
    " are [PARALLEL] - ",
    "**VERIFY Phase ",
    ":** ",
    "(non-blocking)",
    "(depends: ",
    "**pipeline-start:** when ",
    "(pipeline-start: when ",
    " completes",
    "1",
    "2.1",
    "1.1-1.3",
    ", ",
    ")",
    ": ",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\0",
    "\ufeff",
    "\ud800",
    "é",
]
ANY_CHARACTER = st.characters(categories=None)
TEXTS = st.one_of(
    st.text(ANY_CHARACTER),
    st.lists(st.sampled_from(PIECES) | st.text(ANY_CHARACTER, max_size=3), max_size=60).map("".join),
)


@LAWS
@given(TEXTS)
@example(DEMO)
def test_any_text_is_a_plan_whose_references_hold(text: str) -> None:
    document = parse(text, "default")
    ids = [task.task_id for task in document.tasks]
    numbers = [phase.number for phase in document.phases]
    assert len(set(ids)) == len(ids)
    assert len(set(numbers)) == len(numbers)
    assert all(re.fullmatch(TASK_ID, task_id) for task_id in ids)
    for task in document.tasks:
        assert task.phase_number in numbers
        assert set(task.depends_on) <= set(ids)
        assert task.group is None or task.task_id in task.group.task_ids
    assert all(set(group.task_ids) <= set(ids) for group in document.groups)
    assert all(len(group) > 1 and set(group) <= set(numbers) for group in document.parallel)
    assert all(phase.starts_after in (None, *ids) for phase in document.phases)


@LAWS
@given(TEXTS)
@example(DEMO)
def test_a_plan_of_any_text_compiles_to_a_graph_or_is_refused_for_a_cycle(text: str) -> None:
    path = cycle_told(text)
    assert path == [] or (path[0] == path[-1] and len(path) > 1)
    if not path:
        check(compiled(text).tasks)


@LAWS
@given(TEXTS)
@example(DEMO)
def test_any_plan_has_a_status_that_survives_its_file(text: str) -> None:
    status = plan_status.new(plan(text), "docs/plans/x.md", AT)
    assert plan_status.read(plan_status.to_bytes(status)) == status
    assert plan_status.merge(status, plan(text), AT) == status


@LAWS
@given(st.lists(st.lists(st.integers(0, 10**12), min_size=1, max_size=4)))
def test_ids_sort_as_tuples_of_their_numbers(numbers: list[list[int]]) -> None:
    ids = [".".join(map(str, parts)) for parts in numbers]
    assert sorted(ids, key=numeric_order) == [".".join(map(str, parts)) for parts in sorted(numbers)]


# ── plans ──


@st.composite
def plans(draw: st.DrawFn) -> str:
    """Up to five phases with up to four tasks each, and notes of every kind about them."""
    numbers = draw(st.lists(st.integers(1, 6), unique=True, max_size=5))
    ids = [f"{number}.{n}" for number in numbers for n in range(1, draw(st.integers(0, 4)) + 1)]
    some = st.lists(st.sampled_from(ids), min_size=1, max_size=2).map(", ".join) if ids else st.nothing()
    lines = []
    for number in numbers:
        start = f" (pipeline-start: when {draw(st.sampled_from(ids))} completes)" if ids and draw(rarely) else ""
        lines.append(f"## Phase {number}: P{start}")
        for task_id in ids:
            if task_id.startswith(f"{number}."):
                needs = f" (depends: {draw(some)})" if draw(rarely) else ""
                lines.append(f"- [{'x' if draw(rarely) else ' '}] {task_id} t{needs}")
        if draw(rarely):
            lines.append(f"**VERIFY Phase {number}:** fine (non-blocking)")
    for _ in range(draw(st.integers(0, 2))):
        if ids:
            lines.append(f"**Execution Note:** Tasks {draw(some)}, {draw(some)} are [SEQUENTIAL]")
        first, last = draw(st.integers(1, 6)), draw(st.integers(1, 6))
        lines.append(f"**Execution Note:** Phases {first}-{last} are [PARALLEL]")
    return "\n".join(lines)


rarely = st.sampled_from([False, False, False, True])


def waits_for(document: PlanDocument, task: PlanTask) -> set[str]:
    """The tasks that `task` waits for, in the words of the contract."""
    if task.depends_on:
        return set(task.depends_on)
    (phase,) = [phase for phase in document.phases if phase.number == task.phase_number]
    if phase.starts_after:
        return {phase.starts_after}
    return {other.task_id for other in document.tasks if gated(document, other.phase_number, phase.number)}


def gated(document: PlanDocument, earlier: int, later: int) -> bool:
    """The later phase has a gate that the earlier one must pass."""
    return earlier < later and not any({earlier, later} <= set(group) for group in document.parallel)


def full_order(document: PlanDocument) -> nx.DiGraph[str]:
    """An edge from each task to all that it waits for, by any rule."""
    order: nx.DiGraph[str] = nx.DiGraph()
    by_id = {task.task_id: task for task in document.tasks}
    order.add_nodes_from(by_id)
    order.add_edges_from((task.task_id, other) for task in document.tasks for other in waits_for(document, task))
    for group in document.groups:
        ranked = sorted(group.task_ids, key=lambda task_id: run_order(by_id[task_id]))
        order.add_edges_from((later, earlier) for earlier, later in combinations(ranked, 2))
    return order


def accepted(text: str) -> Definition:
    try:
        return compiled(text)
    except Invalid:
        assume(False)
        raise


@LAWS
@given(plans())
@example(DEMO)
def test_a_compiled_task_waits_for_exactly_what_the_contract_says(text: str) -> None:
    document, definition = plan(text), accepted(text)
    by_id = {task.task_id: task for task in document.tasks}
    assert {spec.id: set(spec.depends_on) for spec in definition.tasks} == {
        task.task_id: waits_for(document, task) for task in document.tasks
    }
    assert [spec.id for spec in definition.tasks] == sorted(by_id, key=lambda task_id: run_order(by_id[task_id]))


@LAWS
@given(plans())
@example(DEMO)
def test_exactly_what_a_gate_awaits_of_non_blocking_phases_is_tolerated(text: str) -> None:
    document, definition = plan(text), accepted(text)
    lenient = {phase.number for phase in document.phases if phase.non_blocking}
    started = {phase.number for phase in document.phases if phase.starts_after}
    of_lenient = {task.task_id for task in document.tasks if task.phase_number in lenient}
    by_gate = {t.task_id for t in document.tasks if not t.depends_on and t.phase_number not in started}
    for spec in definition.tasks:
        assert set(spec.tolerates) == (set(spec.depends_on) & of_lenient if spec.id in by_gate else set())


@LAWS
@given(plans())
def test_exactly_plans_with_a_cycle_are_refused_and_the_path_told_is_one_of_theirs(text: str) -> None:
    order = full_order(plan(text))
    path = cycle_told(text)
    assert (path == []) == nx.is_directed_acyclic_graph(order)
    if path:
        assert path[0] == path[-1]
        assert len(set(path[:-1])) == len(path) - 1
        assert all(order.has_edge(waiting, awaited) for waiting, awaited in pairwise(path))


def cycle_told(text: str) -> list[str]:
    try:
        compiled(text)
    except Invalid as error:
        head, _, path = str(error).partition(": ")
        return path.split(" -> ") if head == "Dependency cycle detected" else [str(error)]
    return []


# ── status ──

KINDS = ["start", "complete", "fail", "skip", "reset", "again", "retry", "begin", "end"]
MOVES = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9)), max_size=30)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def change(kind: str, which: int, number: int) -> Change:
    """The `number`-th change, about one of the demo's tasks or one that it does not have."""
    task_id, at = ["1.1", "1.2", "1.3", "2.1", "9.9"][which % 5], AT + timedelta(seconds=number)
    of_tasks: Mapping[str, Change] = {
        "start": Started(task_id, at),
        "complete": Completed(task_id, at, "found.md" if which > 4 else None),
        "fail": Failed(task_id, at, "Boom", stuck=which > 4),
        "skip": Skipped(task_id, at, "why" if which > 4 else None),
        "reset": Reset(task_id, at),
        "again": TriedAgain(task_id, at, number),
        "retry": Retried(task_id, at, number),
        "begin": RunStarted(f"run-{which}", at),
        "end": RunEnded(f"run-{which}", at),
    }
    return of_tasks[kind]


@LAWS
@given(MOVES)
def test_figures_agree_with_the_tasks_after_any_changes_however_they_are_told(moves: list[tuple[str, int]]) -> None:
    changes = [change(kind, which, number) for number, (kind, which) in enumerate(moves)]
    start = plan_status.new(plan(DEMO), "docs/plans/demo.md", AT)
    at_once, one_by_one = plan_status.apply(start, *changes), start
    for each in changes:
        one_by_one = plan_status.apply(one_by_one, each)
    assert one_by_one == at_once
    tasks = plan_status.view(at_once, "demo", "/x").tasks
    summary = at_once.raw["summary"]
    assert summary["totalTasks"] == 4 == sum(count for key, count in summary.items() if key != "totalTasks")
    assert (summary["completed"], summary["in_progress"]) == (totals(tasks).completed, totals(tasks).in_progress)
    assert plan_status.read(plan_status.to_bytes(at_once)) == at_once


@LAWS
@given(MOVES, JSON)
def test_what_others_wrote_is_kept_through_any_changes(moves: list[tuple[str, int]], theirs: Any) -> None:
    raw = plan_status.new(plan(DEMO), "docs/plans/demo.md", AT).raw
    own = {"theirs": theirs}
    raw = raw | own | {"summary": raw["summary"] | own, "tasks": [task | own for task in raw["tasks"]]}
    raw |= {"dependencyGraph": {key: node | own for key, node in raw["dependencyGraph"].items()}}
    status = PlanStatus(raw)
    for number, (kind, which) in enumerate(moves):
        status = plan_status.apply(status, change(kind, which, number))
    merged = plan_status.merge(status, plan(DEMO), AT)
    again = msgspec.json.decode(plan_status.to_bytes(merged))
    kept = [again, again["summary"], *again["tasks"], *again["dependencyGraph"].values()]
    assert [holder["theirs"] for holder in kept] == [theirs] * 10


@LAWS
@given(st.binary() | JSON.map(msgspec.json.encode))
def test_any_bytes_are_a_status_or_none(data: bytes) -> None:
    status = plan_status.read(data)
    assert status is None or plan_status.read(plan_status.to_bytes(status)) == status


@LAWS
@given(
    st.fixed_dictionaries(
        {"planPath": st.text(), "planName": st.text(), "createdAt": st.text()},
        optional={key: JSON for key in ("summary", "runs", "currentPhase", "sequentialGroups", "dependencyGraph")},
    ),
    st.lists(
        st.fixed_dictionaries(
            {"id": st.sampled_from(["1.1", "1.3", "x", ""])},
            optional={
                key: JSON | st.sampled_from(["completed", "Phase 1: A", "2026-01-02T03:04:05Z", "Phase 99999999999: B"])
                for key in ("status", "phase", "description", "startedAt", "completedAt", "retryCount", "lastError")
            }
            | {"executionConstraints": JSON},
        ),
        max_size=4,
    ),
    MOVES,
)
def test_whatever_others_put_into_known_keys_can_be_shown_changed_and_merged(
    head: dict[str, Any], tasks: list[dict[str, Any]], moves: list[tuple[str, int]]
) -> None:
    status = plan_status.read(msgspec.json.encode(head | {"tasks": tasks}))
    assert status is not None
    shown = plan_status.view(status, "demo", "/x")
    assert len(shown.tasks) == len({task["id"] for task in tasks})
    changes = [change(kind, which, number) for number, (kind, which) in enumerate(moves)]
    merged = plan_status.merge(plan_status.apply(status, *changes), plan(DEMO), AT)
    assert [task.task_id for task in plan_status.view(merged, "demo", "/x").tasks] == ["1.1", "1.2", "1.3", "2.1"]

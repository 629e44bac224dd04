"""From a plan file to the core: what waits for what, what is tolerated, and what is refused."""

from __future__ import annotations

import time

import pytest

from orchestrator import run_commands
from orchestrator.compiled import Compiled
from orchestrator.definition import Conduct, TaskSpec
from orchestrator.errors import Invalid
from orchestrator.graph import check
from orchestrator.plan_graph import PHASES_MAX, TASKS_MAX
from tests.builders import Story
from tests.plans import DEMO, compiled, phases, specs

NO_GATE = "**Execution Note:** Phases {} are [PARALLEL]"
LENIENT = "**VERIFY Phase {}:** (non-blocking)"


def needs(text: str) -> dict[str, str]:
    """Task -> what it depends on."""
    return {name: " ".join(spec.depends_on) for name, spec in specs(text).items()}


def tolerated(text: str) -> dict[str, str]:
    return {name: " ".join(spec.tolerates) for name, spec in specs(text).items() if spec.tolerates}


def refusal(text: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        compiled(text)
    return caught.value


# ── the demo ──


def test_the_demo_compiles_to_the_core() -> None:
    definition = compiled(DEMO, batch_size=3, max_iterations=7, max_retries=4)
    assert (definition.dag_id, definition.owner) == ("demo", "team")
    assert definition.conduct == Conduct(batch_size=3, max_iterations=7, sequences=(("1.2", "1.3"),))
    assert needs(DEMO) == {"1.1": "", "1.2": "", "1.3": "1.1 1.2", "2.1": "1.3"}
    assert definition.tasks[2] == TaskSpec(
        id="1.3",
        type="core.echo",
        depends_on=("1.1", "1.2"),
        params={"task_id": "1.3", "description": "Write the file (depends: 1.1, 1.2)"},
        retries=4,
        retry_delay_s=0.0,
        timeout_s=1800.0,
    )


def test_the_demo_runs_to_its_end_and_the_checks_start_after_the_file_is_written() -> None:
    story = Story(*compiled(DEMO).tasks).start()
    assert story.ready == ["1.1", "1.2"]
    assert story.ok("1.1", "1.2").ready == ["1.3"]
    assert story.ok("1.3").ready == ["2.1"]
    assert set(story.ok("2.1").states.values()) == {"succeeded"}


def test_a_plan_without_tasks_compiles_to_nothing() -> None:
    assert compiled("# Nothing\n## Phase 1: Empty").tasks == ()


# ── order ──


def test_ready_tasks_start_by_phase_number_then_by_id() -> None:
    note = NO_GATE.format("1-2")
    text = f"{note}\n## Phase 2: B\n- [ ] 2.1 c\n## Phase 1: A\n- [ ] 1.10 b\n- [ ] 1.9 a\n- [ ] 1.9.1 a"
    assert Story(*compiled(text).tasks).start().ready == ["1.9", "1.9.1", "1.10", "2.1"]


# ── gates ──


def test_a_task_without_dependencies_waits_for_all_earlier_phases() -> None:
    assert needs(phases("1.1 a; 1.2 b", "2.1 c", "3.1 d")) == {
        "1.1": "",
        "1.2": "",
        "2.1": "1.1 1.2",
        "3.1": "1.1 1.2 2.1",
    }


def test_a_gate_stays_shut_when_all_of_the_phase_between_is_skipped_by_hand() -> None:
    """Hence gates are written out in full: dependencies on the last phase alone would let 3.1 start here."""
    story = Story(*compiled(phases("1.1 a", "2.1 b", "3.1 c")).tasks).start()
    story.do(run_commands.SkipTask("2.1"))
    assert story.ready == ["1.1"]
    assert story.ok("1.1").ready == ["3.1"]


def test_a_task_with_dependencies_waits_for_those_only() -> None:
    text = phases("1.1 a; 1.2 b", "2.1 c (depends: 1.1); 2.2 d (depends: 2.1)", "3.1 e (depends: 9.9)")
    assert needs(text) == {"1.1": "", "1.2": "", "2.1": "1.1", "2.2": "2.1", "3.1": "1.1 1.2 2.1 2.2"}


def test_earlier_means_the_number_of_a_phase_not_its_place_in_the_file() -> None:
    assert needs("## Phase 3: C\n- [ ] 3.1 c\n## Phase 1: A\n- [ ] 1.1 a") == {"1.1": "", "3.1": "1.1"}


def test_parallel_phases_have_no_gate_among_themselves() -> None:
    text = phases("1.1 a", "2.1 b", "3.1 c", "4.1 d", note=NO_GATE.format("2-3"))
    assert needs(text) == {"1.1": "", "2.1": "1.1", "3.1": "1.1", "4.1": "1.1 2.1 3.1"}


def test_a_phase_may_be_parallel_with_others_that_are_not_parallel_with_each_other() -> None:
    text = phases("1.1 a", "2.1 b", "3.1 c", one=NO_GATE.format("1, 3"), two=NO_GATE.format("2-3"))
    assert needs(text) == {"1.1": "", "2.1": "1.1", "3.1": ""}


def test_one_task_may_replace_the_gate() -> None:
    text = phases("1.1 a; 1.2 b", "2.1 c") + "\n## Phase 3: C (pipeline-start: when 1.2 completes)\n"
    assert needs(text + "- [ ] 3.1 d\n- [ ] 3.2 e (depends: 1.1)")["3.1"] == "1.2"
    assert needs(text + "- [ ] 3.1 d\n- [ ] 3.2 e (depends: 1.1)")["3.2"] == "1.1"


def test_later_gates_tolerate_failures_of_a_non_blocking_phase() -> None:
    text = phases("1.1 a", "2.1 b; 2.2 c", "3.1 d; 3.2 e (depends: 2.1)", "4.1 f", note=LENIENT.format(2))
    assert tolerated(text) == {"3.1": "2.1 2.2", "4.1": "2.1 2.2"}
    assert all(set(spec.tolerates) <= set(spec.depends_on) for spec in specs(text).values())


def test_a_pipeline_start_tolerates_nothing() -> None:
    text = phases("1.1 a", note=LENIENT.format(1)) + "\n## Phase 2: B (pipeline-start: when 1.1 completes)\n- [ ] 2.1 b"
    assert tolerated(text) == {}


# ── sequential groups ──


def test_sequences_are_in_run_order_and_named_once() -> None:
    note = "**Execution Note:** Tasks 2.1, 1.10, 1.9 are [SEQUENTIAL]"
    text = f"{note}\n{note}\n" + phases("1.9 a; 1.10 b", "2.1 c")
    assert compiled(text).conduct == Conduct(sequences=(("1.9", "1.10", "2.1"),))


def test_a_group_of_one_is_no_sequence() -> None:
    assert compiled(phases("1.1 a", note="**Execution Note:** Task 1.1 is [SEQUENTIAL]")).conduct == Conduct()


# ── refusals ──


@pytest.mark.parametrize(
    ("text", "cycle"),
    [
        (phases("1.1 a (depends: 1.2); 1.2 b (depends: 1.1)"), "1.1 -> 1.2 -> 1.1"),
        (phases("1.1 a (depends: 1.1)"), "1.1 -> 1.1"),
        # each waits for the next
        (phases("1.1 a (depends: 1.3); 1.2 b (depends: 1.1); 1.3 c (depends: 1.2)"), "1.1 -> 1.3 -> 1.2 -> 1.1"),
        # a gate closes it
        (phases("1.1 a (depends: 2.1)", "2.1 b"), "1.1 -> 2.1 -> 1.1"),
        (phases("1.1 a (depends: 4.1)", "2.1 b", "3.1 c", "4.1 d"), "1.1 -> 4.1 -> 1.1"),
        (
            phases("1.1 a (depends: 3.1)", "2.1 b", "3.1 c", note=NO_GATE.format("2-3")),
            "1.1 -> 3.1 -> 1.1",
        ),
        # a pipeline-start closes it
        ("## Phase 1: A (pipeline-start: when 1.1 completes)\n- [ ] 1.1 a", "1.1 -> 1.1"),
        # the order of a group closes it
        (
            phases("1.1 a (depends: 1.3); 1.2 b; 1.3 c", note="**Execution Note:** Tasks 1.1-1.3 are [SEQUENTIAL]"),
            "1.1 -> 1.3 -> 1.2 -> 1.1",
        ),
    ],
)
def test_a_cycle_is_refused_and_named(text: str, cycle: str) -> None:
    error = refusal(text)
    assert str(error) == f"Dependency cycle detected: {cycle}"
    assert error.details == (("tasks", "cycle"),)


def test_a_dependency_on_a_later_phase_is_no_cycle_when_the_phases_are_parallel() -> None:
    text = phases("1.1 a (depends: 2.1)", "2.1 b", note=NO_GATE.format("1-2"))
    assert needs(text) == {"1.1": "2.1", "2.1": ""}


def test_a_plan_too_large_to_run_is_refused() -> None:
    tasks = "\n".join(f"- [ ] 1.{n} t" for n in range(TASKS_MAX + 1))
    assert str(refusal(f"## Phase 1: A\n{tasks}")) == "the plan has 5001 tasks; at most 5000 can be run"
    headers = "\n".join(f"## Phase {n}: P" for n in range(PHASES_MAX + 1))
    assert str(refusal(headers)) == "the plan has 1001 phases; at most 1000 can be run"


def test_a_plan_whose_gates_multiply_is_refused() -> None:
    text = phases(*("; ".join(f"{p}.{t} t" for t in range(50)) for p in range(1, 101)))
    assert str(refusal(text)) == "the tasks of the plan wait for more than 2500000 others in all; merge phases"


# ── size ──


def test_a_plan_of_fifty_phases_of_forty_tasks_compiles_in_no_time() -> None:
    text = phases(*("; ".join(f"{p}.{t} t" for t in range(1, 41)) for p in range(1, 51)))
    before = time.process_time()
    definition = compiled(text)
    assert time.process_time() - before < 1.0
    assert sum(len(spec.depends_on) for spec in definition.tasks) == 1_960_000
    assert len({id(spec.depends_on) for spec in definition.tasks}) == 50


def test_what_compiles_is_a_graph_that_the_core_accepts() -> None:
    text = phases("1.1 a; 1.2 b", "2.1 c", "3.1 d", "4.1 e", one=NO_GATE.format("2-3"), two=LENIENT.format(1))
    check(compiled(text).tasks)
    assert Compiled(compiled(text), 1).graph.roots == (0, 1)

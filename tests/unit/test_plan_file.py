"""Plan files: every line of the grammar, and what is odd around it."""

from __future__ import annotations

import time

import pytest

from orchestrator.plan_file import MEMBERS_MAX, Phase, PlanTask, SequentialGroup, numeric_order, run_order
from tests.plans import DEMO, phases, plan


def ids(text: str) -> list[str]:
    return [task.task_id for task in plan(text).tasks]


def timed(text: str) -> float:
    """Seconds of processor time that the text takes."""
    before = time.process_time()
    plan(text)
    return time.process_time() - before


def dependencies(text: str) -> dict[str, tuple[str, ...]]:
    return {task.task_id: task.depends_on for task in plan(text).tasks}


def groups(note: str, *tasks: str) -> list[tuple[str, ...]]:
    """Sequential groups that `note` makes of three phases with tasks .1 to .4."""
    listed = tasks or tuple("; ".join(f"{phase}.{n} t" for n in range(1, 5)) for phase in range(1, 4))
    return [group.task_ids for group in plan(phases(*listed, note=f"**Execution Note:** {note}")).groups]


def parallel(note: str) -> tuple[tuple[int, ...], ...]:
    return plan(phases(*(f"{n}.1 t" for n in range(1, 6)), note=f"**Execution Note:** {note}")).parallel


# ── the demo ──


def test_the_demo_reads_as_the_contract_says() -> None:
    demo = plan(DEMO)
    group = SequentialGroup("1.2-1.3", "same file", ("1.2", "1.3"))
    assert demo.title == "Demo"
    assert demo.phases == (Phase(1, "Setup"), Phase(2, "Check", non_blocking=True))
    assert [phase.name for phase in demo.phases] == ["Phase 1: Setup", "Phase 2: Check"]
    assert demo.tasks == (
        PlanTask("1.1", 1, "Create the folder"),
        PlanTask("1.2", 1, "Already done", done=True, group=group),
        PlanTask("1.3", 1, "Write the file (depends: 1.1, 1.2)", depends_on=("1.1", "1.2"), group=group),
        PlanTask("2.1", 2, "Run the checks (depends: 1.3)", depends_on=("1.3",)),
    )
    assert demo.groups == (group,)
    assert demo.parallel == ((1, 2),)
    assert demo.notes == ()


def test_a_task_knows_its_text_without_the_note_about_dependencies() -> None:
    assert [task.text for task in plan(DEMO).tasks] == [
        "Create the folder",
        "Already done",
        "Write the file",
        "Run the checks",
    ]


# ── title ──


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Implementation Plan: Demo", "Demo"),
        ("# implementation plan:Demo", "Demo"),
        ("# The Implementation Plan: Demo", "The Implementation Plan: Demo"),
        ("text\n### Demo\n# Later", "Demo"),
        ("#Demo", "untitled"),
        ("# Implementation Plan:\n# Demo", "untitled"),
        ("## Phase 1: Setup", "untitled"),
        ("## Phase 1: Setup\n# Demo", "Demo"),
        ("", "untitled"),
    ],
)
def test_the_first_heading_that_is_no_phase_is_the_title(text: str, title: str) -> None:
    assert plan(text).title == title


# ── phases ──


@pytest.mark.parametrize("line", ["## Phase 7: Ship it", "##  Phase  7:Ship it  ", "##\tPhase\t7:\tShip it"])
def test_a_phase_header_has_a_number_and_a_title(line: str) -> None:
    assert plan(line).phases == (Phase(7, "Ship it"),)


@pytest.mark.parametrize(
    "line",
    ["# Phase 1: X", "### Phase 1: X", "## phase 1: X", "## Phase: X", "## Phase 1 X", "## Phase 1:", " ## Phase 1: X"],
)
def test_other_headings_are_no_phases(line: str) -> None:
    assert plan(line).phases == ()


def test_a_phase_goes_on_until_the_next_phase_header() -> None:
    text = "## Phase 1: A\n- [ ] 1.1 a\n### Notes\n## Risks\n- [ ] 1.2 b\n## Phase 2: B\n- [ ] 2.1 c"
    assert [(task.task_id, task.phase_number) for task in plan(text).tasks] == [("1.1", 1), ("1.2", 1), ("2.1", 2)]


def test_a_phase_number_that_comes_again_continues_that_phase() -> None:
    twice = plan("## Phase 1: A\n- [ ] 1.1 a\n## Phase 2: B\n## Phase 1: C\n- [ ] 1.2 b")
    assert twice.phases == (Phase(1, "A"), Phase(2, "B"))
    assert [task.phase_number for task in twice.tasks] == [1, 1]
    assert twice.notes == ("phase 1 appears more than once; its first title counts",)


# ── tasks ──


@pytest.mark.parametrize(
    ("line", "task"),
    [
        ("- [ ] 1.1 a", PlanTask("1.1", 1, "a")),
        ("- [x] 1.1 a", PlanTask("1.1", 1, "a", done=True)),
        ("-  [ ]\t1.2.3\t two  words  ", PlanTask("1.2.3", 1, "two  words")),
        ("- [ ] 10.200 a", PlanTask("10.200", 1, "a")),
        ("- [ ] 1.1 näh 🎉 <b>", PlanTask("1.1", 1, "näh 🎉 <b>")),
    ],
)
def test_an_unindented_checkbox_with_an_id_is_a_task(line: str, task: PlanTask) -> None:
    assert plan(f"## Phase 1: A\n{line}").tasks == (task,)


@pytest.mark.parametrize(
    "line",
    [
        " - [ ] 1.1 indented",
        "\t- [ ] 1.1 indented",
        "* [ ] 1.1 star",
        "- [X] 1.1 capital",
        "- [] 1.1 empty",
        "-[ ] 1.1 no space",
        "- [ ] 1 no part",
        "- [ ] 1.2.3.4 four parts",
        "- [ ] 1.1: colon",
        "- [ ] 1.1",
        "- [ ] Type check passes",
        "- [ ] 1234567890.1 ten digits",
        "- [ ] ١.١ digits of another script",
    ],
)
def test_anything_else_is_a_note_for_people(line: str) -> None:
    assert plan(f"## Phase 1: A\n{line}").tasks == ()


def test_a_task_outside_of_phases_is_ignored_with_a_note() -> None:
    early = plan("- [ ] 0.1 early\n## Phase 1: A\n- [ ] 1.1 a")
    assert [task.task_id for task in early.tasks] == ["1.1"]
    assert early.notes == ("task 0.1 is in no phase and is ignored",)


def test_of_duplicate_ids_the_first_wins() -> None:
    twice = plan(phases("1.1 first; 1.2 other", "1.1 second"))
    assert [(task.task_id, task.description) for task in twice.tasks] == [("1.1", "first"), ("1.2", "other")]
    assert twice.notes == ("task 1.1 appears more than once; the first counts",)


def test_tasks_stay_in_the_order_of_the_file() -> None:
    assert ids("## Phase 2: B\n- [ ] 2.10 a\n- [ ] 2.9 b\n## Phase 1: A\n- [ ] 1.1 c") == ["2.10", "2.9", "1.1"]


# ── order ──


def test_ids_sort_numerically_part_by_part() -> None:
    ordered = ["0.9", "1.1", "1.2", "1.2.1", "1.2.10", "1.10", "2.1", "10.1", "notes"]
    assert sorted(sorted(ordered), key=numeric_order) == ordered


def test_leading_zeros_and_very_long_numbers_are_numbers_too() -> None:
    assert numeric_order("1.02") == numeric_order("1.2")
    assert numeric_order("1." + "9" * 10_000) < numeric_order("1.1" + "0" * 10_000)


def test_ready_tasks_start_by_phase_number_then_by_id() -> None:
    text = "## Phase 2: B\n- [ ] 1.1 a\n## Phase 1: A\n- [ ] 1.10 b\n- [ ] 1.9 c"
    assert [task.task_id for task in sorted(plan(text).tasks, key=run_order)] == ["1.9", "1.10", "1.1"]


# ── dependencies ──


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("(depends: 1.1)", ("1.1",)),
        ("(DEPENDS:1.1,1.2)", ("1.1", "1.2")),
        ("(Depends:  1.2 ,\t1.1 )", ("1.2", "1.1")),
        ("(depends: 1.1 and 1.2; 1.1)", ("1.1", "1.2")),
        ("(depends: 1.1) and more (depends: 1.2)", ("1.1", "1.2")),
        ("(see x) (depends: 1.1) (or y)", ("1.1",)),
        ("(depends: )", ()),
        ("(depends: 1.1", ()),
        ("depends: 1.1", ()),
        ("(depends on: 1.1)", ()),
    ],
)
def test_dependencies_are_listed_in_the_text(note: str, expected: tuple[str, ...]) -> None:
    assert dependencies(phases("1.1 a; 1.2 b") + f"\n- [ ] 1.3 c {note}")["1.3"] == expected


def test_unknown_dependencies_are_ignored_with_a_note() -> None:
    document = plan(phases("1.1 a; 1.2 b (depends: 1.1, 9.9, soon)"))
    assert document.tasks[1].depends_on == ("1.1",)
    assert document.notes == (
        "task 1.2 depends on unknown task 9.9, which is ignored",
        "task 1.2 depends on unknown task soon, which is ignored",
    )


def test_a_dependency_may_be_listed_later_and_in_another_phase() -> None:
    assert dependencies(phases("1.1 a (depends: 2.1)", "2.1 b"))["1.1"] == ("2.1",)


# ── sequential groups ──


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("Tasks 1.1-1.3 are [SEQUENTIAL] - why", [("1.1", "1.2", "1.3")]),
        ("tasks 1.1 – 1.3 are [sequential]", [("1.1", "1.2", "1.3")]),
        ("Tasks 1.3-1.1 are [SEQUENTIAL]", [("1.1", "1.2", "1.3")]),
        ("Tasks 3.4, 3.1 are [SEQUENTIAL]", [("3.1", "3.4")]),
        ("Tasks 1.1-1.2, 1.4 and 2.1 are [SEQUENTIAL]", [("1.1", "1.2", "1.4", "2.1")]),
        ("Task 1.1 is [SEQUENTIAL]", [("1.1",)]),
        ("Tasks 1.3-1.999999999 are [SEQUENTIAL]", [("1.3", "1.4")]),
        ("Tasks 1.4-2.1 are [SEQUENTIAL]", [("1.4", "2.1")]),
        ("Tasks 7.1-7.3 are [SEQUENTIAL]", []),
        ("Tasks 1.1-1.3 are [PARALLEL]", []),
        ("Tasks 1.1-1.3 are sequential", []),
        ("[SEQUENTIAL]", []),
    ],
)
def test_a_note_makes_tasks_sequential(note: str, expected: list[tuple[str, ...]]) -> None:
    assert groups(note) == expected


def test_a_range_covers_three_part_ids_and_the_subtasks_of_its_end() -> None:
    tasks = "1.1 a; 1.1.2 b; 1.2 c; 1.2.1 d; 1.3 e; 1.10 f"
    assert groups("Tasks 1.1.2-1.2 are [SEQUENTIAL]", tasks) == [("1.1.2", "1.2", "1.2.1")]


def test_a_group_keeps_its_label_and_reason_and_a_task_has_the_first_that_names_it() -> None:
    note = "**Execution Note:** Tasks 1.1, 1.2 are [SEQUENTIAL] — same file: a.py\n"
    document = plan(note + note.replace("1.1, 1.2", "1.2-1.3") + phases("1.1 a; 1.2 b; 1.3 c; 1.4 d"))
    first, second = document.groups
    assert first == SequentialGroup("1.1, 1.2", "same file: a.py", ("1.1", "1.2"))
    assert second.task_ids == ("1.2", "1.3")
    assert [task.group for task in document.tasks] == [first, first, second, None]


def test_a_note_names_what_it_cannot_group() -> None:
    text = phases("1.1 a", "2.1 b", note="**Execution Note:** Tasks 1.1-2.1, 1.9 are [SEQUENTIAL]")
    assert plan(text).notes == (
        "tasks 1.1 to 2.1 are in two phases; only these two are sequential",
        "unknown task 1.9 cannot be sequential",
    )


def test_groups_that_multiply_are_ignored_with_a_note() -> None:
    tasks = "; ".join(f"1.{n} t" for n in range(1, 1001))
    notes = {f"n{i}": f"**Execution Note:** Tasks 1.{i}-1.1000 are [SEQUENTIAL]" for i in range(1, 100)}
    document = plan(phases(tasks, **notes))
    assert 0 < sum(len(group.task_ids) for group in document.groups) <= MEMBERS_MAX
    assert document.notes[-1].startswith("group '1.99-1.1000' is ignored")


# ── gates ──


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("Phases 1-3 are [PARALLEL] - why", ((1, 2, 3),)),
        ("Phase 2 and 4 are [parallel]", ((2, 4),)),
        ("Phases 1-2, 5 are [PARALLEL]", ((1, 2, 5),)),
        ("Phases 4-999999999 are [PARALLEL]", ((4, 5),)),
        ("Phases 5-4 are [PARALLEL]", ((4, 5),)),
        ("Phase 1 is [PARALLEL]", ()),
        ("Phases 8-9 are [PARALLEL]", ()),
        ("Phases 1-3 are [SEQUENTIAL]", ()),
    ],
)
def test_a_note_makes_phases_parallel(note: str, expected: tuple[tuple[int, ...], ...]) -> None:
    assert parallel(note) == expected


@pytest.mark.parametrize(
    ("line", "non_blocking"),
    [
        ("**VERIFY Phase 1:** all green (non-blocking)", True),
        ("**Verify Phase 1:** (Non-Blocking) all green", True),
        ("**VERIFY Phase 1 (non-blocking):** all green", True),
        ("  **VERIFY Phase 1:** (non-blocking)", True),
        ("**VERIFY Phase 1:** all green", False),
        ("**VERIFY Phase 12:** all green (non-blocking)", False),
        ("VERIFY Phase 1: all green (non-blocking)", False),
    ],
)
def test_a_verify_line_makes_its_phase_non_blocking(line: str, non_blocking: bool) -> None:
    assert plan(phases("1.1 a", note=line)).phases == (Phase(1, "P1", non_blocking=non_blocking),)


@pytest.mark.parametrize(
    "text",
    [
        "## Phase 2: Ship (pipeline-start: when 1.1 completes)",
        "## Phase 2: (Pipeline-Start: when 1.1 complete) Ship",
        "**pipeline-start:** when 1.1 completes\n\n## Phase 2: Ship",
        "**Pipeline-start:** when 1.1 completes\nsome text\n## Phase 2: Ship",
        "**pipeline-start:** when 1.2 completes\n## Phase 2: Ship (pipeline-start: when 1.1 completes)",
    ],
)
def test_a_phase_may_start_after_one_task(text: str) -> None:
    assert plan(phases("1.1 a; 1.2 b") + "\n" + text).phases[1] == Phase(2, "Ship", starts_after="1.1")


def test_a_pipeline_start_is_for_the_next_phase_only() -> None:
    text = phases("1.1 a") + "\n**pipeline-start:** when 1.1 completes\n## Phase 2: B\n## Phase 3: C"
    assert [phase.starts_after for phase in plan(text).phases] == [None, "1.1", None]


def test_a_pipeline_start_after_an_unknown_task_leaves_the_gate_with_a_note() -> None:
    document = plan("## Phase 1: A (pipeline-start: when 9.9 completes)\n- [ ] 1.1 a")
    assert document.phases == (Phase(1, "A"),)
    assert document.notes == ("phase 1 starts after unknown task 9.9; its gate stays",)


# ── odd files ──


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_any_system_read_alike(end: str) -> None:
    assert plan(DEMO.replace("\n", end)) == plan(DEMO)


def test_a_byte_order_mark_is_no_part_of_the_title() -> None:
    assert plan("\ufeff" + DEMO) == plan(DEMO)


def test_what_no_journal_keeps_is_replaced() -> None:
    assert plan("## Phase 1: A\n- [ ] 1.1 a\0b\ud800c").tasks[0].description == "a\ufffdb?c"


def test_only_line_ends_end_lines() -> None:
    assert plan("## Phase 1: A\n- [ ] 1.1 a\u2028- [ ] 1.2 b\x0bc\x85d").tasks[0].description == (
        "a\u2028- [ ] 1.2 b\x0bc\x85d"
    )


@pytest.mark.parametrize(
    "line",
    [
        "(depends:",
        "(depends: ",
        "(pipeline-start: ",
        "[SEQUENTIAL] ",
        " ",
        "1.1-",
        "1.1 - ",
        "1",
        "#",
        "**",
        "- [ ] ",
    ],
)
@pytest.mark.parametrize(
    "head",
    ["", "- [ ] 1.2 ", "## Phase 2: ", "**Execution Note:** Tasks 1.1", "**VERIFY Phase ", "**pipeline-start:** when "],
)
def test_the_time_is_linear_in_the_text(head: str, line: str) -> None:
    """One line of 300,000 characters that promise a match and break it: anything quadratic takes minutes."""
    text = f"## Phase 1: A\n- [ ] 1.1 a\n{head}{line * (300_000 // len(line))}x"
    assert timed(text) < 2.0


def test_the_time_is_linear_in_the_number_of_lines() -> None:
    tasks = "\n".join(f"- [ ] 1.{n} t (depends: 1.{n - 1}, 9.9)" for n in range(10_000))
    headers = "\n".join(f"## Phase {n}: P" for n in range(10_000))
    notes = "**Execution Note:** Tasks 1.1-1.9999 are [SEQUENTIAL]\n**Execution Note:** Phases 1-9999 are [PARALLEL]\n"
    assert timed(f"## Phase 1: A\n{tasks}\n{headers}\n{notes * 5_000}") < 5.0

"""A plan as its author writes it: a markdown file, read line by line.

    # Implementation Plan: Demo                                         title
    ## Phase 1: Setup                                                   phase, until the next one
    **Execution Note:** Tasks 1.2-1.3 are [SEQUENTIAL] - same file      sequential group
    **Execution Note:** Phases 1-2 are [PARALLEL] - independent         parallel phases
    - [x] 1.2 Already done                                              task, completed
    - [ ] 1.3 Write the file (depends: 1.1, 1.2)                        task with dependencies
    **VERIFY Phase 1:** all green (non-blocking)                        its failures do not block later gates
    ## Phase 3: Ship (pipeline-start: when 1.3 completes)               one task instead of the gate
    **pipeline-start:** when 1.3 completes                              the same, above the header

Any text is a plan: what is not one of these lines is a note for people. `parse` never raises and takes time
linear in the text. What it had to leave out is told in `notes`.

Where section 6 of the instances contract is silent: numbers have at most nine digits; a phase header is not a
title; a phase number that comes again continues that phase; a list is one group with its ranges, the end of a range
covers that task's subtasks (`1.1-1.3` covers 1.3.2), and a range over two phases is its two ends; dependencies of
which none is known count as none; a pipeline-start above a header may have other lines in between.
`**VERIFY Phase 1 (non-blocking):**` is read like the form above. Source: contracts/instances.md, section 6.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

#: members of all groups of tasks and phases of a plan; a group that exceeds it is left out
MEMBERS_MAX = 20_000

T = TypeVar("T")
NumericOrder = tuple[tuple[int, int, str], ...]

_NUMBER = r"[0-9]{1,9}"
_ID = rf"{_NUMBER}\.{_NUMBER}(?:\.{_NUMBER})?"
_LINE_END = re.compile(r"\r\n|\n|\r")
_HEADING = re.compile(r"#{1,6}\s+(.+)")
_TITLE_PREFIX = re.compile(r"Implementation Plan:\s*", re.IGNORECASE)
_PHASE = re.compile(rf"##\s+Phase\s+({_NUMBER}):\s*(.+)")
_TASK = re.compile(rf"-\s+\[([ x])\]\s+({_ID})\s+(.+)")
_DEPENDS = re.compile(r"\(depends:([^()]*)\)", re.IGNORECASE)
_EXECUTION_NOTE = re.compile(r"\s*\*\*Execution Note:\*\*", re.IGNORECASE)
_TAG = re.compile(r"\[(SEQUENTIAL|PARALLEL)\]", re.IGNORECASE)
_VERIFY = re.compile(rf"\s*\*\*VERIFY\s+Phase\s+({_NUMBER})\b", re.IGNORECASE)
_START = re.compile(rf"\s*\*\*pipeline-start:\*\*\s*when\s+({_ID})\s+completes?\b", re.IGNORECASE)
_START_IN_TITLE = re.compile(rf"\(pipeline-start:\s*when\s+({_ID})\s+completes?\)", re.IGNORECASE)
_ID_SPAN = re.compile(rf"(?<![0-9.])({_ID})(?![0-9.])(?:\s*[-–—]\s*({_ID})(?![0-9.]))?")
_NUMBER_SPAN = re.compile(rf"(?<![0-9.])({_NUMBER})(?![0-9.])(?:\s*[-–—]\s*({_NUMBER})(?![0-9.]))?")
#: greater than any part of a task id
_ABOVE_ALL = (2, 0, "")
#: words between ids that are no ids
_FILLERS = frozenset({"and", "&"})
_SEPARATOR = re.compile(r"[,;\s]+")


@dataclass(frozen=True, slots=True)
class Phase:
    """A section of the plan."""

    number: int
    title: str
    #: the one task that replaces the phase's gate
    starts_after: str | None = None
    #: tasks of it that failed for good count as done for later gates
    non_blocking: bool = False

    @property
    def name(self) -> str:
        """The phase string, for instance `Phase 1: Setup`."""
        return f"Phase {self.number}: {self.title}"


@dataclass(frozen=True, slots=True)
class SequentialGroup:
    """Tasks that never overlap and keep their order."""

    #: as written, for instance `1.2-1.3, 1.5`
    label: str
    #: "" when none is given
    reason: str
    #: in run order
    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanTask:
    """One checkbox."""

    task_id: str
    phase_number: int
    #: as written, with its `(depends: …)` note
    description: str
    done: bool = False
    #: explicit ones, all in the plan
    depends_on: tuple[str, ...] = ()
    #: the first group that names it
    group: SequentialGroup | None = None

    @property
    def text(self) -> str:
        """The description without its `(depends: …)` notes."""
        return _without(_DEPENDS, self.description)


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """A plan file."""

    title: str
    #: as written, each number once
    phases: tuple[Phase, ...]
    #: as written, each id once
    tasks: tuple[PlanTask, ...]
    groups: tuple[SequentialGroup, ...] = ()
    #: phase numbers that have no gate among themselves, ascending
    parallel: tuple[tuple[int, ...], ...] = ()
    #: what was ignored, for the log
    notes: tuple[str, ...] = ()


def numeric_order(task_id: str) -> NumericOrder:
    """Sort key of any id: part by part as numbers (1.2 before 1.10); parts that are no numbers come last."""
    return tuple(_part_order(part) for part in task_id.split("."))


def run_order(task: PlanTask) -> tuple[int, NumericOrder]:
    """Sort key of the order in which ready tasks start: phase number, then numeric id."""
    return task.phase_number, numeric_order(task.task_id)


def parse(text: str, default_title: str) -> PlanDocument:
    """The plan in `text`; `default_title` is for one without a heading. Never raises."""
    draft = _Draft()
    for line in _LINE_END.split(_clean(text)):
        _read(draft, line.rstrip())
    groups = _groups(draft)
    return PlanDocument(
        title=draft.title or default_title,
        phases=tuple(_phases(draft)),
        tasks=tuple(_tasks(draft, groups)),
        groups=groups,
        parallel=tuple(_parallel(draft)),
        notes=tuple(draft.notes),
    )


# ── lines ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Draft:
    """What the lines so far said; references between them are not looked up yet."""

    #: None before the first heading
    title: str | None = None
    #: number -> (title, pipeline-start)
    phases: dict[int, tuple[str, str | None]] = field(default_factory=dict)
    #: id -> (phase number, description, done)
    tasks: dict[str, tuple[int, str, bool]] = field(default_factory=dict)
    #: (ids as written, reason)
    sequential: list[tuple[str, str]] = field(default_factory=list)
    parallel: list[str] = field(default_factory=list)
    non_blocking: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    #: members of groups that were given out
    members: int = 0
    #: of the phase the next line belongs to
    phase: int | None = None
    #: pipeline-start that waits for its header
    start: str | None = None


def _clean(text: str) -> str:
    """`text` without what no JSON file or journal can keep (as CommonMark 2.3 does with NUL)."""
    return text.removeprefix("\ufeff").replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _without(note: re.Pattern[str], text: str) -> str:
    return " ".join(note.sub(" ", text).split()) if note.search(text) else text


def _read(draft: _Draft, line: str) -> None:
    if line.startswith("#"):
        _read_heading(draft, line)
    elif found := _TASK.fullmatch(line):
        _read_task(draft, *found.groups())
    elif found := _EXECUTION_NOTE.match(line):
        _read_execution_note(draft, line[found.end() :])
    elif found := _VERIFY.match(line):
        if "(non-blocking)" in line[found.end() :].lower():
            draft.non_blocking.add(int(found[1]))
    elif found := _START.match(line):
        draft.start = found[1]


def _read_heading(draft: _Draft, line: str) -> None:
    if found := _PHASE.fullmatch(line):
        _read_phase(draft, int(found[1]), found[2])
    elif draft.title is None and (found := _HEADING.fullmatch(line)):
        prefix = _TITLE_PREFIX.match(found[1])
        draft.title = found[1][prefix.end() :] if prefix else found[1]


def _read_phase(draft: _Draft, number: int, title: str) -> None:
    inline = _START_IN_TITLE.search(title)
    if number in draft.phases:
        draft.notes.append(f"phase {number} appears more than once; its first title counts")
    else:
        draft.phases[number] = (_without(_START_IN_TITLE, title), inline[1] if inline else draft.start)
    draft.phase, draft.start = number, None


def _read_task(draft: _Draft, mark: str, task_id: str, description: str) -> None:
    if draft.phase is None:
        draft.notes.append(f"task {task_id} is in no phase and is ignored")
    elif task_id in draft.tasks:
        draft.notes.append(f"task {task_id} appears more than once; the first counts")
    else:
        draft.tasks[task_id] = (draft.phase, description, mark == "x")


def _read_execution_note(draft: _Draft, body: str) -> None:
    tag = _TAG.search(body)
    words = body[: tag.start()].split() if tag else []
    if tag is None or not words:
        return
    listed = " ".join(words[1:-1] if words[-1].lower() in ("are", "is") else words[1:])
    match words[0].lower().removesuffix("s"), tag[1].upper():
        case "task", "SEQUENTIAL":
            draft.sequential.append((listed, body[tag.end() :].lstrip(" \t-–—:").strip()))
        case "phase", "PARALLEL":
            draft.parallel.append(listed)
        case _:  # parallel tasks are what tasks are anyway
            return


# ── references between lines ──────────────────────────────────────────────────────────────────────


def _phases(draft: _Draft) -> Iterator[Phase]:
    for number, (title, start) in draft.phases.items():
        if start is not None and start not in draft.tasks:
            draft.notes.append(f"phase {number} starts after unknown task {start}; its gate stays")
            start = None
        yield Phase(number, title, start, number in draft.non_blocking)


def _tasks(draft: _Draft, groups: tuple[SequentialGroup, ...]) -> Iterator[PlanTask]:
    group_of: dict[str, SequentialGroup] = {}
    for group in groups:
        for task_id in group.task_ids:
            group_of.setdefault(task_id, group)
    for task_id, (phase_number, description, done) in draft.tasks.items():
        depends_on = tuple(dict.fromkeys(_dependencies(draft, task_id, description)))
        yield PlanTask(task_id, phase_number, description, done, depends_on, group_of.get(task_id))


def _dependencies(draft: _Draft, task_id: str, description: str) -> Iterator[str]:
    for found in _DEPENDS.finditer(description):
        for word in _SEPARATOR.split(found[1]):
            if word in draft.tasks:
                yield word
            elif word and word.lower() not in _FILLERS:
                draft.notes.append(f"task {task_id} depends on unknown task {word}, which is ignored")


def _groups(draft: _Draft) -> tuple[SequentialGroup, ...]:
    by_number = sorted(draft.tasks, key=numeric_order)
    orders = [numeric_order(task_id) for task_id in by_number]
    groups = []
    for label, reason in draft.sequential:
        ids = _taken(draft, label, _ids_named(draft, label, by_number, orders))
        if ids:
            groups.append(SequentialGroup(label, reason, tuple(sorted(ids, key=lambda i: _run_order(draft, i)))))
    return tuple(groups)


def _run_order(draft: _Draft, task_id: str) -> tuple[int, NumericOrder]:
    return draft.tasks[task_id][0], numeric_order(task_id)


def _ids_named(draft: _Draft, label: str, by_number: list[str], orders: list[NumericOrder]) -> Iterator[str]:
    for found in _ID_SPAN.finditer(label):
        first, last = sorted((found[1], found[2] or found[1]), key=numeric_order)
        if found[2] and first.split(".")[0] == last.split(".")[0]:
            end = bisect_right(orders, (*numeric_order(last), _ABOVE_ALL))
            yield from (by_number[place] for place in range(bisect_left(orders, numeric_order(first)), end))
        else:
            yield from _known(draft, first, last)


def _known(draft: _Draft, first: str, last: str) -> Iterator[str]:
    if first != last:
        draft.notes.append(f"tasks {first} to {last} are in two phases; only these two are sequential")
    for task_id in dict.fromkeys((first, last)):
        if task_id in draft.tasks:
            yield task_id
        else:
            draft.notes.append(f"unknown task {task_id} cannot be sequential")


def _parallel(draft: _Draft) -> Iterator[tuple[int, ...]]:
    ascending = sorted(draft.phases)
    for label in draft.parallel:
        numbers = _taken(draft, label, _numbers_named(label, ascending))
        if len(numbers) > 1:
            yield tuple(sorted(numbers))


def _numbers_named(label: str, ascending: list[int]) -> Iterator[int]:
    for found in _NUMBER_SPAN.finditer(label):
        first, last = sorted((int(found[1]), int(found[2] or found[1])))
        places = range(bisect_left(ascending, first), bisect_right(ascending, last))
        yield from (ascending[place] for place in places)


def _taken(draft: _Draft, label: str, members: Iterator[T]) -> set[T]:
    """The members, if the plan may have that many more; otherwise none."""
    room = MEMBERS_MAX - draft.members
    taken = list(islice(members, room + 1))
    if len(taken) > room:
        draft.notes.append(f"group {label!r} is ignored: groups have more than {MEMBERS_MAX} members in all")
        return set()
    draft.members += len(taken)
    return set(taken)


def _part_order(part: str) -> tuple[int, int, str]:
    if not (part.isascii() and part.isdigit()):
        return 1, 0, part
    digits = part.lstrip("0")
    return 0, len(digits), digits

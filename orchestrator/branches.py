"""Which way a branch goes: its value names the dependents that go on, the others are skipped.

    "a" | ["a", "b"] | [] | null ──▶ the dependents that do not go on      or a wrong choice, which fails the branch

Only direct dependents can be named; in a group of tasks, those of the group by what they are called there. One that is
not named goes on all the same when it also comes after one that is: in `branch >> a >> join` and `branch >> join`,
choosing `a` does not skip `join`. A teardown is never skipped so, its setups decide; nor is a compensation. A branch
that a person skips has chosen nothing: all its dependents proceed.
"""

from __future__ import annotations

import msgspec

from orchestrator.graph import reached
from orchestrator.grouping import within
from orchestrator.messages import Value
from orchestrator.run_state import Run

#: names of dependents that an error lists
_NAMES_MAX = 20


class WrongChoice(ValueError):
    """The value of a branch does not say which dependents go on."""


def not_chosen(run: Run, branch: int, value: Value | None) -> list[int]:
    """Positions of the dependents that do not go on. Raises WrongChoice."""
    ways = ways_of(run, branch)
    chosen = _chosen(run, branch, ways, value)
    others = [position for position in ways.values() if position not in chosen]
    if not chosen or not run.compiled.detours(branch):
        return others
    below = reached(run.compiled.graph.children, sorted(chosen))
    return [position for position in others if position not in below]


def ways_of(run: Run, branch: int) -> dict[str, int]:
    """The dependents that a branch chooses among: name -> position."""
    graph, advances = run.compiled.graph, run.compiled.advances
    return {graph.names[child]: child for child in graph.children[branch] if advances(child)}


def _chosen(run: Run, branch: int, ways: dict[str, int], value: Value | None) -> set[int]:
    if run.kubernetes and branch not in run.compiled.waiting:
        raise WrongChoice("the value of a task that runs as a Kubernetes Job is not kept, so it cannot be a branch")
    group = run.compiled.specs[branch].group
    names = [inner if (inner := within(group, name)) in ways else name for name in _names(value)]
    unknown = [name for name in names if name not in ways]
    if unknown:
        listed = ", ".join(repr(name) for name in list(ways)[:_NAMES_MAX]) or "none"
        raise WrongChoice(f"{unknown[0]!r} is not a direct dependent; those are: {listed}")
    return {ways[name] for name in names}


def _names(value: Value | None) -> list[str]:
    try:
        if value is not None and value.artifact is not None:
            raise msgspec.ValidationError
        told = msgspec.json.decode(value.inline, type=str | list[str] | None) if value else None
    except msgspec.DecodeError:
        raise WrongChoice("a branch returns the id of a dependent, a list of ids, or None") from None
    return [told] if isinstance(told, str) else told or []

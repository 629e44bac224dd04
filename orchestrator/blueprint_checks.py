"""What holds of every blueprint before it is used, however it was written.

    one start · every known target exists · every state is reached · the path is free

`check` raises for what is wrong and tells what only may be: a state that nothing is seen to lead to is an error unless
some reached state decides in code where to go. `check_together` holds what a set of blueprints must not share.
Source: jobs contract, section 7; contracts README, section 1 (reserved paths).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestrator.blueprint import END_STATES, Action, Blueprint, SubBlueprint
from orchestrator.blueprint_graph import leads_of, reached
from orchestrator.errors import Invalid
from orchestrator.faults import Fault, refusal

NAME = r"[A-Za-z0-9_.-]{1,128}"
_SEGMENT = r"[A-Za-z0-9_.~-]{1,128}"
#: first segments after `/api/` that belong to other surfaces
_FOREIGN = {"orchestrators", "plans", "pipeline", "runners", "jobs", "stubs", "health"}
#: what is below `/api/<version>/` already
_OWN = re.compile(
    r"jobs|dashboard|jobs/[^/]*/(cancel|history|release)|(blueprints|workers|webhooks|admin|runtime)(/.*)?"
)


def check(blueprint: Blueprint) -> tuple[str, ...]:
    """Warnings about a blueprint that may be used. Raises Invalid, telling every fault by its path."""
    faults = [*_names(blueprint), *_starts(blueprint), *_dangling(blueprint)]
    if faults:
        raise refusal(faults)
    found = reached(blueprint)
    lost = [name for name in blueprint.states if name not in found and name not in END_STATES]
    guides = [name for name in blueprint.states if name in found and blueprint.states[name].dynamic]
    if lost and not guides:
        raise refusal([(f"states/{name}", "is never reached from the start") for name in lost])
    return tuple(
        f"state {name!r} is reached only if the code of {' or '.join(map(repr, guides))} leads there" for name in lost
    )


def check_together(blueprints: Sequence[Blueprint]) -> None:
    """No two share a name or a path, and every sub-blueprint that is named in a file is among them. Raises Invalid."""
    names: set[str] = set()
    paths: dict[str, str] = {}
    for one in blueprints:
        if one.name in names:
            raise Invalid(f"two blueprints are called {one.name!r}")
        names.add(one.name)
        if one.path is not None and (other := paths.setdefault(one.path, one.name)) != one.name:
            raise Invalid(f"blueprints {other!r} and {one.name!r} are both mounted at {one.path}")
    for one in blueprints:
        for path, name in _runs(one):
            if name not in names:
                raise Invalid(f"blueprint {one.name!r}: {path}: unknown blueprint {name!r}")


def _names(blueprint: Blueprint) -> Iterator[Fault]:
    if not re.fullmatch(NAME, blueprint.name):
        yield "name", f"must match {NAME}"
    if blueprint.api_version is not None and not _is_segment(blueprint.api_version):
        yield "api_version", f"must match {_SEGMENT}"
    if blueprint.api_endpoint is None:
        if blueprint.api_version is not None:
            yield "api_version", "needs an api_endpoint"
    elif not _is_endpoint(blueprint.api_endpoint):
        yield "api_endpoint", f"must be segments of {_SEGMENT}, a slash before each"
    elif is_reserved(blueprint.path or ""):
        yield "api_endpoint", f"{blueprint.path} is reserved"
    for name in blueprint.states:
        if not name or len(name) > 250 or "\0" in name:
            yield f"states/{name[:100]}", "must be named by 1 to 250 characters"


def _is_segment(text: str) -> bool:
    return re.fullmatch(_SEGMENT, text) is not None and text not in (".", "..")


def _is_endpoint(text: str) -> bool:
    before, *segments = text.split("/")
    return before == "" and 0 < len(segments) <= 16 and all(map(_is_segment, segments))


def is_reserved(path: str) -> bool:
    """Can no blueprint be mounted at `path`, which is below `/api/`?"""
    first, _, rest = path.removeprefix("/api/").partition("/")
    return first in _FOREIGN or _OWN.fullmatch(rest) is not None


def _starts(blueprint: Blueprint) -> Iterator[Fault]:
    starts = [name for name, state in blueprint.states.items() if state.start]
    if not starts:
        yield "states", "none is the start: one must be"
    elif len(starts) > 1:
        yield "states", f"only one can be the start, not {' and '.join(map(repr, starts))}"


def _dangling(blueprint: Blueprint) -> Iterator[Fault]:
    for name, state in blueprint.states.items():
        if state.end and leads_of(state):
            yield f"states/{name}", "is an end: it cannot act"
        for lead in leads_of(state):
            if lead.state not in blueprint.states and lead.state not in END_STATES:
                yield f"states/{name}", f"leads to the unknown state {lead.state!r}"


def _runs(blueprint: Blueprint) -> Iterator[Fault]:
    """(path, name) of every sub-blueprint that a declared state names."""
    for name, state in blueprint.states.items():
        actions: list[Action | None] = [guarded.action for guarded in state.when]
        for action in (*actions, state.action):
            if isinstance(action, SubBlueprint):
                yield f"states/{name}/run_blueprint", action.name

"""What a DAG awaits of others, and what has come of it: the machine behind `after` and `consumes`.

    a run of DAG u succeeded ── after/u  ──┐
    a task updated asset x   ── asset/x  ──┼─▶ taken in order ─▶ Gathered ─▶ starts, each with its causes
                                           │        ▲                │
    the DAG resumes, a window is free ─────┘        └── what waits ──┘

A fact is pending until a start consumes it, and a start consumes all that is pending for it:

    all (also consumes)   once every source has a fact: all facts of all sources
    any                   with every fact: all of them
    one upstream, and its run has a window: the facts of that window, and the start has that window

While the DAG is paused facts are only gathered, so what comes meanwhile starts one run (or one for each window) when it
is resumed. A window in which a run of the DAG goes on waits for its end.

Two designs were open. Facts could be counted per source and compared with what the last run saw (a number a source, no
list), but then a run could not tell its causes, and two replicas that decide at once would have to agree on "the last
run". Here the list is one record, and the journal writes it in the step that creates the runs: each fact is consumed
once, whatever dies. Source: issue 5, deliverable 2; Airflow's data-aware scheduling.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from orchestrator.definition import Definition
from orchestrator.messages import Cause

#: facts of one source that a DAG keeps; of more it forgets the oldest, which the next start would have consumed anyway
FACTS_MAX = 1000
#: causes that a run tells of: the latest
CAUSES_MAX = 100
#: assets that the tasks of one DAG update
MAKES_MAX = 1000
#: updates that an asset tells of: the latest
UPDATES_MAX = 20


class Fact(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that may start runs."""

    #: after/<dag id> | asset/<asset>
    source: str
    cause: Cause
    #: `Window.key()` of the run that succeeded
    window_key: str = ""


class Gathered(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a DAG has been told, and what of that no run has consumed, oldest first."""

    #: place in the stream of facts
    seen: str = "0-0"
    pending: tuple[Fact, ...] = ()


class Start(msgspec.Struct, frozen=True):
    """A run that is to be."""

    causes: tuple[Cause, ...]
    window_key: str = ""


class Update(msgspec.Struct, frozen=True):
    """One update of an asset."""

    cause: Cause
    dag_id: str
    at_ms: int


class AssetLog(msgspec.Struct, frozen=True):
    """What has become of an asset."""

    #: place in the stream of facts
    seen: str = "0-0"
    updates: int = 0
    #: oldest first
    last: tuple[Update, ...] = ()


def after(dag_id: str) -> str:
    """The source of that DAG's successes."""
    return f"after/{dag_id}"


def asset(name: str) -> str:
    """The source of that asset's updates."""
    return f"asset/{name}"


def event(name: str) -> str:
    """The source of events of that name; nothing of them is gathered, they start runs at once."""
    return f"event/{name}"


def sources(definition: Definition) -> tuple[str, ...]:
    """What is gathered for it."""
    return (*map(after, definition.after), *map(asset, definition.consumes))


def follows(definition: Definition) -> tuple[str, ...]:
    """Everything that starts runs of it, but for its schedule."""
    return (*sources(definition), *((event(definition.on_event),) if definition.on_event else ()))


def makes(definition: Definition) -> tuple[str, ...]:
    """Assets that its tasks update, each once."""
    return tuple(dict.fromkeys(name for task in definition.tasks for name in task.produces))


def faults(definition: Definition) -> Iterator[tuple[str, str]]:
    """What makes no sense in what a DAG awaits: field, and why."""
    if definition.after and definition.consumes:
        yield "consumes", "a DAG follows DAGs or assets, not both"
    if definition.after_rule == "any" and not definition.after:
        yield "after_rule", "needs after"
    if definition.dag_id in definition.after:
        yield "after", f"{definition.dag_id!r} would start itself"
    made = makes(definition)
    if own := set(made).intersection(definition.consumes):
        yield "consumes", f"its own tasks produce {min(own)!r}: it would start itself"
    if len(made) > MAKES_MAX:
        yield "tasks", f"they produce at most {MAKES_MAX} assets"


def take(
    gathered: Gathered,
    definition: Definition,
    facts: Sequence[Fact],
    seen: str,
    *,
    paused: bool,
    busy: Iterable[str] = (),
) -> tuple[Gathered, list[Start]]:
    """`facts`, which were told up to the place `seen`, one after another, and the runs that start because of them.

    `busy` has the windows in which a run goes on. What is pending of a source that is followed no longer is dropped.
    """
    pile = _Pile(definition, busy)
    starts: list[Start] = []
    for fact in gathered.pending:
        pile.add(fact)
    if not paused:
        starts += pile.due()
    for fact in facts:
        if pile.add(fact) and not paused:
            starts += pile.due()
    return Gathered(seen, pile.left()), starts


class _Pile:
    """What is pending, by source."""

    def __init__(self, definition: Definition, busy: Iterable[str]) -> None:
        self._by_source: dict[str, list[Fact]] = {source: [] for source in sources(definition)}
        self._one = len(definition.after) == 1
        self._any = bool(definition.after) and definition.after_rule == "any"
        self._busy = frozenset(busy)
        #: of one upstream: window -> its facts
        self._windows: dict[str, list[Fact]] = {}

    def add(self, fact: Fact) -> bool:
        """Whether the DAG follows its source."""
        facts = self._by_source.get(fact.source)
        if facts is None:
            return False
        if self._one and fact.window_key:
            facts = self._windows.setdefault(fact.window_key, [])
        facts.append(fact)
        if len(facts) > FACTS_MAX:
            del facts[0]
        return True

    def due(self) -> list[Start]:
        """What can start now, taken from the pile."""
        free = [key for key in self._windows if key not in self._busy]
        starts = [_start(self._windows.pop(key), key) for key in free]
        piles = self._by_source.values()
        if any(piles) if self._any else bool(piles) and all(piles):
            share = max(1, CAUSES_MAX // len(piles))
            starts.append(_start([fact for facts in piles for fact in facts[-share:]]))
            for facts in piles:
                facts.clear()
        return starts

    def left(self) -> tuple[Fact, ...]:
        """What is still pending."""
        piles = (*self._by_source.values(), *self._windows.values())
        return tuple(fact for facts in piles for fact in facts)


def _start(facts: Sequence[Fact], window_key: str = "") -> Start:
    return Start(tuple(fact.cause for fact in facts[-CAUSES_MAX:]), window_key)


def updated(log: AssetLog, updates: Sequence[Update], seen: str) -> AssetLog:
    """The log after these updates, which were told up to the place `seen`."""
    return AssetLog(seen, log.updates + len(updates), (*log.last, *updates)[-UPDATES_MAX:])

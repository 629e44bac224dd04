"""A version of a definition as its runs need it: the graph, and what can be known before any of them starts.

Tasks go by their position in the definition; behind them come the instances of mapped tasks. One is shared by all
runs of the version; a run whose map expands gets one of its own (`with_instances`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import msgspec

from orchestrator.conduct import Rules
from orchestrator.definition import IN_CLUSTER_TYPES, WAITING_TYPES, Definition, TaskSpec
from orchestrator.graph import Graph, compile_graph, ranks, reached
from orchestrator.needs import is_bound

_JSON = msgspec.json.Encoder()


class Compiled:
    """A version of a definition with its graph: shared by all runs of that version."""

    __slots__ = (
        "_as_jobs",
        "_detours",
        "_ranks",
        "bound",
        "cached",
        "definition",
        "first",
        "graph",
        "keys",
        "makes",
        "maps",
        "params",
        "queue_limits",
        "ruled",
        "rules",
        "runnable",
        "scopes",
        "setups",
        "size",
        "slas",
        "specs",
        "timed",
        "undoes",
        "undone_by",
        "version",
        "waiting",
    )

    def __init__(self, definition: Definition, version: int) -> None:
        self.definition = definition
        self.version = version
        self.specs: tuple[TaskSpec, ...] = definition.tasks
        #: tasks of the definition; behind them come instances of mapped tasks
        self.size = len(self.specs)
        #: positions of mapped tasks
        self.maps = frozenset(i for i, spec in enumerate(self.specs) if spec.expand)
        self.graph: Graph = compile_graph(definition.tasks)
        #: of a plan
        self.rules: Rules | None = None
        if definition.conduct is not None:
            self.rules = Rules(definition.conduct, self.specs, self.graph.index)
        #: what a task's duration is measured by: tasks of one key are expected to take alike, tasks of a plan are not
        self.keys = tuple(
            f"{definition.dag_id}:{spec.id if self.rules else spec.entrypoint or spec.type}"
            for spec in definition.tasks
        )
        #: per task: is there anybody who can run its type? A mapped task is not run itself
        self.runnable = tuple(spec.type in IN_CLUSTER_TYPES and not spec.expand for spec in definition.tasks)
        #: positions that wait for the world, without a worker
        self.waiting = frozenset(i for i, spec in enumerate(self.specs) if spec.type in WAITING_TYPES)
        #: each task's own params, as JSON text
        self.params = tuple(msgspec.Raw(_JSON.encode(spec.params)) for spec in definition.tasks)
        #: some task has another trigger rule than the default, is a branch, a teardown or a compensation
        self.ruled = any(_is_ruled(spec) for spec in self.specs)
        #: position of a teardown -> its setups
        self.setups: dict[int, tuple[int, ...]] = {
            i: tuple(self.graph.index[name] for name in spec.teardown_of)
            for i, spec in enumerate(self.specs)
            if spec.teardown_of
        }
        #: position of a teardown -> what has to have ended before
        self.scopes = {i: frozenset(self.graph.parents[i]) for i in self.setups}
        #: position of a compensation -> the task that it undoes, and the other way round
        self.undoes: dict[int, int] = {
            i: self.graph.index[spec.compensates] for i, spec in enumerate(self.specs) if spec.compensates is not None
        }
        self.undone_by = {undone: i for i, undone in self.undoes.items()}
        #: task -> assets that it updates
        self.makes = {spec.id: spec.produces for spec in self.specs if spec.produces}
        #: some task needs more than a slot of the default pool
        self.bound = is_bound(definition)
        #: results of some task are used again
        self.cached = any(spec.cache_ttl_s is not None for spec in self.specs)
        #: positions that start at once
        self.first = self.graph.roots
        if self.ruled:
            parents = self.graph.parents
            self.first = tuple(i for i, s in enumerate(self.specs) if not parents[i] or s.trigger_rule == "always")
        #: (seconds, position) of tasks with an SLA, the first to be over first; position -> seconds it may wait for a
        #: worker; is any of this, or a limit on its own wait, to be watched?
        self.slas = sorted((float(spec.sla_s), i) for i, spec in enumerate(self.specs) if spec.sla_s is not None)
        self.queue_limits = {i: s.queue_timeout_s for i, s in enumerate(self.specs) if s.queue_timeout_s is not None}
        self.timed = bool(self.slas or self.queue_limits or definition.queue_timeout_s is not None)
        self._ranks: list[int] | None = None
        self._detours: dict[int, bool] = {}
        self._as_jobs: Compiled | None = None

    @property
    def ranks(self) -> list[int]:
        """Per task: it ranks above all it waits for."""
        if self._ranks is None:
            self._ranks = ranks(self.graph)
        return self._ranks

    def detours(self, position: int) -> bool:
        """Does one of its dependents come after another one?"""
        if position not in self._detours:
            children = self.graph.children
            self._detours[position] = not reached(children, children[position]).isdisjoint(children[position])
        return self._detours[position]

    def advances(self, position: int) -> bool:
        """Is it neither a teardown nor a compensation? Of a map, its instances do not count."""
        return position < self.size and position not in self.setups and position not in self.undoes

    def decides(self, position: int) -> bool:
        """Does its failure fail the run?"""
        return position < self.size and (position not in self.setups or self.specs[position].on_failure_fail_run)

    def with_instances(self, position: int, names: Sequence[str], runnable: bool) -> Compiled:
        """The same for one run, with instances of the mapped task at `position` behind what is there."""
        out, graph, n = copy.copy(self), self.graph, len(names)
        plain = msgspec.structs.replace(self.specs[position], depends_on=(), trigger_rule="all_success", expand={})
        index = dict(graph.index) if len(self.specs) == self.size else graph.index
        index.update(zip(names, range(len(self.specs), len(self.specs) + n), strict=True))
        out.specs = (*self.specs, *(msgspec.structs.replace(plain, id=name) for name in names))
        out.graph = Graph(
            (*graph.names, *names), index, (*graph.parents, *((),) * n), (*graph.children, *((),) * n), graph.roots
        )
        out.keys += (self.keys[position],) * n
        out.params += (self.params[position],) * n
        out.runnable += (runnable,) * n
        out._ranks = out._as_jobs = None
        return out

    @property
    def as_jobs(self) -> Compiled:
        """The same, for runs whose tasks are Kubernetes Jobs: an image may know any type, and takes its own time."""
        if self._as_jobs is None:
            self._as_jobs = copy.copy(self)
            self._as_jobs.keys = tuple(f"job:{key}" for key in self.keys)
            self._as_jobs.runnable = tuple(
                i not in self.waiting and not spec.expand for i, spec in enumerate(self.specs)
            )
        return self._as_jobs


def _is_ruled(spec: TaskSpec) -> bool:
    rules = spec.trigger_rule != "all_success" or spec.branch or bool(spec.teardown_of)
    return rules or bool(spec.expand) or spec.compensates is not None

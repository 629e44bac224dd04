"""A pool of workers as people define it: what each worker takes of the cluster, and how many there may be.

    PoolSpec(num_gpus=1, labels={"tier": "a"}, min=0, max=4)
         │ shape: a WorkerActor asks Ray for that         │ bounds and rule: autoscale.py says how many
         ▼                                                ▼
    worker-gpu-0, worker-gpu-1, …

A pool whose `min` and `max` are equal is *fixed*, any other one *elastic*. Definitions are records of the journal, so
they outlive every actor, and `down`. The pool `default` needs none: it then has as many workers as the settings say.
Workers without a shape take nothing of a cluster of our own, so that slots, not Ray's CPUs, are what is counted; of one
that we joined, a CPU each (`actors/placement.py`).

When a worker's shape changes, so does the `generation` of the pool: workers are numbered from `generation * NUMBERS`,
so whoever finds one alive knows whether it has the shape that it should have.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from orchestrator.errors import Conflict, Invalid

#: kind of the journal's records: name of the pool -> PoolSpec
POOLS = "pool"
#: pools that may be defined: each may ask the cluster for workers of another shape
POOLS_MAX = 500
#: workers that a pool may have
WORKERS_MAX = 512
#: numbers that a generation may use: more than workers it may have, as those that end keep theirs for a while
NUMBERS = 10_000
#: units of a resource that one worker may take, if any, and bytes of memory
AMOUNT_MIN, AMOUNT_MAX = 0.0001, 100_000.0
BYTES_MAX = 2**50
#: custom resources, and labels, that a pool may name
NAMES_MAX = 20
SPAN_MAX_S = 86_400.0
TASKS_MAX = 10_000

#: devices that Ray gives whole, and the numbers of them that go together
_WHOLE = frozenset({"FURIOSA", "HPU", "MBLT", "RBLN", "TPU", "TTNPU", "neuron_cores"})
_TPUS = (0, 1, 2, 4, 8)
#: Ray's own resources have fields of their own here
_RESERVED = frozenset({"CPU", "GPU", "memory", "object_store_memory"})
_RESOURCE = re.compile(r"^[A-Za-z][A-Za-z0-9_.:/-]{0,62}$")
_PART = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_WORD = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"^(?=[^/]{{1,253}}(/|$))({_PART}(\.{_PART})*/)?{_WORD}$")
#: `a`, `!a`, `in(a,b)` or `!in(a,b)`, as Ray's label selectors have it
_SELECTED = re.compile(rf"^!?({_WORD}|in\({_WORD}(, ?{_WORD})*\))$")


class PoolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is defined of one pool."""

    # -- the shape of a worker
    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory_bytes: int = 0
    #: custom resources of the cluster
    resources: dict[str, float] = {}
    #: labels that its node must have: Ray's label selector
    labels: dict[str, str] = {}

    # -- how many
    min: int = 0
    max: int = 0
    #: surplus workers end once they were not needed for so long
    idle_timeout_s: float = 60.0
    #: one more worker for so many tasks that wait
    tasks_per_worker: int = 1
    #: no more workers before tasks have waited for so long; the first one comes at once
    scale_up_wait_s: float = 1.0
    #: at most so many more at a time
    step: int = 10

    #: grows when the shape changes
    generation: int = 0

    @property
    def elastic(self) -> bool:
        """Does its number of workers follow what waits?"""
        return self.min < self.max

    @property
    def shape(self) -> tuple[Any, ...]:
        """Equal for those whose workers are alike."""
        return (
            self.num_cpus,
            self.num_gpus,
            self.memory_bytes,
            tuple(sorted(self.resources.items())),
            tuple(sorted(self.labels.items())),
        )

    @property
    def bundle(self) -> dict[str, float]:
        """What one worker takes, by Ray's names; empty = nothing that is counted."""
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": float(self.memory_bytes), **self.resources}
        return {name: amount for name, amount in amounts.items() if amount}


def fixed(spec: PoolSpec, n: int) -> PoolSpec:
    """The same with exactly `n` workers."""
    return msgspec.structs.replace(spec, min=n, max=n)


def succeeding(spec: PoolSpec, former: PoolSpec | None, unused: int = 0) -> PoolSpec:
    """The definition that takes the place of `former`: of a new generation when workers have another shape.

    Without a former one it is of the generation `unused`, of which no worker is left.
    """
    if former is None:
        return msgspec.structs.replace(spec, generation=unused)
    return msgspec.structs.replace(spec, generation=former.generation + (spec.shape != former.shape))


def check(spec: PoolSpec) -> None:
    """Raises Invalid when something is out of bounds."""
    faults = [*_faults_of_numbers(spec), *_faults_of_shape(spec)]
    if faults:
        raise Invalid("the pool cannot be so", tuple(faults))


def too_many(most: int) -> Conflict:
    """There are as many pools as there may be."""
    return Conflict(f"there are at most {most} pools; remove some: orchestrator pools rm NAME")


def _faults_of_numbers(spec: PoolSpec) -> list[tuple[str, str]]:
    faults = []
    if not 0 <= spec.max <= WORKERS_MAX:
        faults.append(("max", f"0 to {WORKERS_MAX}"))
    if not 0 <= spec.min <= spec.max:
        faults.append(("min", "0 to `max`"))
    if not 0 <= spec.idle_timeout_s <= SPAN_MAX_S:
        faults.append(("idle_timeout_s", f"0 to {SPAN_MAX_S:g}"))
    if not 0 <= spec.scale_up_wait_s <= SPAN_MAX_S:
        faults.append(("scale_up_wait_s", f"0 to {SPAN_MAX_S:g}"))
    if not 1 <= spec.tasks_per_worker <= TASKS_MAX:
        faults.append(("tasks_per_worker", f"1 to {TASKS_MAX}"))
    if not 1 <= spec.step <= WORKERS_MAX:
        faults.append(("step", f"1 to {WORKERS_MAX}"))
    return faults


def _faults_of_shape(spec: PoolSpec) -> list[tuple[str, str]]:
    faults = []
    amounts = {"num_cpus": spec.num_cpus, "num_gpus": spec.num_gpus}
    amounts |= {f"resources/{name}": amount for name, amount in spec.resources.items()}
    for field, amount in amounts.items():
        if amount and not AMOUNT_MIN <= amount <= AMOUNT_MAX:
            faults.append((field, f"0, or {AMOUNT_MIN:g} to {AMOUNT_MAX:g}"))
        elif amount > 1 and amount != int(amount):
            faults.append((field, "above 1 a whole number"))
    for name, amount in spec.resources.items():
        if name in _WHOLE and amount % 1 != 0:
            faults.append((f"resources/{name}", "a whole number"))
        if name == "TPU" and amount not in _TPUS:
            faults.append((f"resources/{name}", "1, 2, 4 or 8"))
    if not 0 <= spec.memory_bytes <= BYTES_MAX:
        faults.append(("memory_bytes", f"0 to {BYTES_MAX}"))
    if max(len(spec.resources), len(spec.labels)) > NAMES_MAX:
        faults.append(("resources" if len(spec.resources) > NAMES_MAX else "labels", f"at most {NAMES_MAX}"))
    for name in spec.resources:
        if name in _RESERVED or not _RESOURCE.fullmatch(name):
            faults.append((f"resources/{name}", "a custom resource: letters, digits, _ . : / -"))
    for name, value in spec.labels.items():
        if not _LABEL.fullmatch(name) or not _SELECTED.fullmatch(value):
            faults.append((f"labels/{name}", "a label and its value, !value, in(a,b) or !in(a,b)"))
    return faults

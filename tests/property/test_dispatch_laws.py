"""Laws of the scheduler's choices, against a model in plain dictionaries."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.dispatch import Admission, Queued
from orchestrator.slots import QUANTUM_S, Grant, Slots

DAGS, PARENTS = ("d1", "d2"), (None, None, "b1", "b2")
LIMITS = {"b1": 1, "b2": 3}
LEAVES = (("t", "manual", "d"), ("t", "backfill", "d"))

Op = tuple[str, int, int]
_ops = st.lists(
    st.tuples(
        st.sampled_from(["enqueue"] * 4 + ["occupy", "finish", "finish", "requeue", "configure"]),
        st.integers(0, 11),
        st.integers(0, 3),
    ),
    max_size=60,
)


def a_run(number: int) -> Queued:
    parent = PARENTS[number % 4]
    return Queued(f"r{number:02d}", DAGS[number % 3 % 2], parent, LIMITS.get(parent or ""))


class Model:
    """What ought to be known of the runs: run -> queued | active."""

    def __init__(self) -> None:
        self.where: dict[str, str] = {}
        self.limit = dict.fromkeys(DAGS, 16)
        self.paused = dict.fromkeys(DAGS, False)

    def active(self, dag: str, parent: str | None = "any") -> int:
        known = [a_run(n) for n in range(12)]
        return sum(
            self.where.get(run.run_id) == "active" and run.dag == dag and parent in ("any", run.parent) for run in known
        )

    def admissible(self, run: Queued) -> bool:
        below = run.parent_limit is None or self.active(run.dag, run.parent) < run.parent_limit
        waits = self.where.get(run.run_id) == "queued"
        return waits and not self.paused[run.dag] and self.active(run.dag) < self.limit[run.dag] and below


@settings(max_examples=200, deadline=None)
@given(_ops)
def test_admission_keeps_every_limit_and_leaves_nobody_waiting_who_may_start(ops: list[Op]) -> None:
    made, model = Admission(), Model()
    for dag in DAGS:
        made.configure(dag, 16, False)
    for kind, number, share in ops:
        _do(made, model, kind, a_run(number), share)
        for run in made.admit():
            assert model.admissible(run), f"I7 {run}"
            model.where[run.run_id] = "active"
        stuck = [r for r in map(a_run, range(12)) if model.admissible(r)]
        assert not stuck, f"I9 {stuck}"
        states = list(model.where.values())
        assert (made.queued, made.active) == (states.count("queued"), states.count("active"))


def _do(made: Admission, model: Model, kind: str, run: Queued, share: int) -> None:
    known = model.where.get(run.run_id)
    match kind:
        case "enqueue":
            made.enqueue(run)
            model.where[run.run_id] = "queued"
        case "occupy":
            made.occupy(run)
            model.where[run.run_id] = "active"
        case "finish":
            made.finish(run.run_id)
            model.where.pop(run.run_id, None)
        case "requeue" if known == "active":
            made.requeue(run.run_id, run)
            model.where[run.run_id] = "queued"
        case "configure":
            model.limit[run.dag], model.paused[run.dag] = 1 + share, share == 3
            made.configure(run.dag, model.limit[run.dag], model.paused[run.dag])


_slot_ops = st.lists(
    st.tuples(
        st.sampled_from(["demand"] * 3 + ["release"] * 3 + ["add", "lose", "drain", "forget", "late", "yield"]),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(_slot_ops)
def test_a_slot_has_one_holder_and_none_is_idle_while_tasks_wait(ops: list[Op]) -> None:
    slots, leases, now_s = Slots(), dict[str, Grant](), 0.0
    numbers: list[int] = []
    for kind, which, share in ops:
        now_s += QUANTUM_S / 2
        _on_slots(slots, leases, kind, which, share)
        for grant in slots.grants(now_s):
            assert grant.worker not in leases, "one holder at a time"
            leases[grant.worker] = grant
            numbers.append(grant.lease)
        idle = [slot for slot in slots.slots.values() if slot.holder is None and not slot.draining]
        assert not (idle and slots.waiting), "I9"
        for ask in slots.yields(now_s):
            assert leases[ask.worker] == Grant(ask.holder, ask.worker, leases[ask.worker].incarnation, ask.lease)
        assert {s.worker: s.holder for s in slots.slots.values() if s.holder} == {
            w: g.holder for w, g in leases.items()
        }
    assert numbers == sorted(set(numbers)), "a lease number is never used again"


def _on_slots(slots: Slots, leases: dict[str, Grant], kind: str, which: int, share: int) -> None:
    holder, worker = "ABCD"[which], f"w{which}"
    match kind:
        case "demand":
            slots.demand(holder, {LEAVES[share % 2]: share} if share else {})
        case "release" if worker in leases:
            grant = leases.pop(worker)
            slots.release(grant.holder, worker, grant.lease)
        case "late":
            slots.release(holder, f"w{share}", 0)
        case "add":
            if worker not in slots.slots or slots.slots[worker].incarnation != f"i{share}":
                leases.pop(worker, None)
            slots.add(worker, "default", f"i{share}")
        case "lose":
            slots.remove(worker)
            leases.pop(worker, None)
        case "drain":
            slots.drain(worker)
        case "forget":
            slots.forget(holder)
            for name in [name for name, grant in leases.items() if grant.holder == holder]:
                del leases[name]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4))
def test_everybody_who_waits_gets_a_slot_within_a_few_quanta(workers: int, actors: int) -> None:
    slots, leases = Slots(), dict[str, Grant]()
    for n in range(workers):
        slots.add(f"w{n}", "default", "i1")
    served: dict[str, float] = {}
    now_s = 0.0
    while now_s < 10 * actors * QUANTUM_S:
        for holder in "ABCD"[:actors]:
            slots.demand(holder, {LEAVES[0]: 5})
        for grant in slots.grants(now_s):
            leases[grant.worker] = grant
            served.setdefault(grant.holder, now_s)
        for ask in slots.yields(now_s):
            slots.release(ask.holder, ask.worker, ask.lease)
        now_s += QUANTUM_S / 4
    assert set(served) == set("ABCD"[:actors])
    assert max(served.values()) <= 2 * actors * QUANTUM_S

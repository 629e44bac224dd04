"""The scheduler's two choices: admission under limits, slots under demand."""

from __future__ import annotations

from orchestrator.dispatch import WAKES, Admission, Queued
from orchestrator.slots import QUANTUM_S, Grant, Slots, Yield

MANUAL, BACKFILL = ("t", "manual", "d"), ("t", "backfill", "d")


def queued(run_id: str, parent: str | None = None, *, dag: str = "d", limit: int | None = None) -> Queued:
    return Queued(run_id, dag, parent, limit)


def admission(limit: int = 16, *runs: Queued, paused: bool = False) -> Admission:
    made = Admission({"scheduled": 4, "manual": 4, "backfill": 1})
    made.configure("d", limit, paused)
    for run in runs:
        made.enqueue(run)
    return made


def ids(made: Admission) -> list[str]:
    return [run.run_id for run in made.admit()]


# ── admission ──


def test_runs_start_in_the_order_of_their_creation_up_to_the_limit() -> None:
    made = admission(2, queued("r3"), queued("r1"), queued("r2"))
    assert ids(made) == ["r1", "r2"]
    assert (made.queued, made.active) == (1, 2)
    assert ids(made) == []
    made.finish("r1")
    assert ids(made) == ["r3"]


def test_a_run_waits_until_its_dag_is_known() -> None:
    made = Admission()
    made.enqueue(queued("r1"))
    made.configure("d", 1, False)
    assert ids(made) == ["r1"]


def test_a_paused_dag_admits_nothing_until_it_is_resumed() -> None:
    made = admission(16, queued("r1"), paused=True)
    assert ids(made) == []
    made.configure("d", 16, False)
    assert ids(made) == ["r1"]


def test_another_dag_has_a_limit_of_its_own() -> None:
    made = admission(1, queued("r1"), queued("r2"))
    made.configure("other", 1, False)
    made.enqueue(queued("r9", dag="other"))
    assert sorted(ids(made)) == ["r1", "r9"]


def scheduled(run_id: str) -> Queued:
    return Queued(run_id, "d", None, scheduled=True)


def test_runs_of_a_schedule_that_must_not_overlap_start_one_by_one_and_others_pass_them() -> None:
    made = admission(16, scheduled("r1"), scheduled("r2"), queued("r3"), scheduled("r4"))
    made.configure("d", 16, False, one_by_one=True)
    assert ids(made) == ["r3", "r1"]
    made.enqueue(queued("r5"))
    assert ids(made) == ["r5"]
    made.finish("r3")
    assert ids(made) == []
    made.finish("r1")
    assert ids(made) == ["r2"]
    made.finish("r2")
    assert ids(made) == ["r4"]


def test_a_run_of_a_schedule_that_waits_may_be_cancelled_or_queued_again() -> None:
    made = admission(16, scheduled("r1"), scheduled("r2"), scheduled("r3"))
    made.configure("d", 16, False, one_by_one=True)
    assert ids(made) == ["r1"]
    made.finish("r2")
    made.requeue("r1", scheduled("r1"))
    assert ids(made) == ["r1"]
    made.finish("r1")
    assert ids(made) == ["r3"]
    made.finish("r3")
    assert (made.queued, made.active, ids(made)) == (0, 0, [])


def test_runs_of_a_schedule_may_overlap_once_its_dag_says_so() -> None:
    made = admission(16, scheduled("r2"), scheduled("r3"))
    made.configure("d", 16, False, one_by_one=True)
    made.occupy(scheduled("r1"))
    assert ids(made) == []
    made.configure("d", 16, False)
    assert ids(made) == ["r2", "r3"]


def test_a_backfill_gets_its_share_of_the_places_and_no_more() -> None:
    made = admission(1, *(queued(f"b{n}", "b") for n in range(9)), *(queued(f"m{n}") for n in range(9)))
    started = ids(made)
    while len(started) < 10:
        made.finish(started[-1])
        started += ids(made)
    assert "".join(run[0] for run in started) == "mbmmmmbmmm"


def test_backfills_of_one_dag_take_turns() -> None:
    made = admission(1, queued("r1", "b"), queued("r2", "b"), queued("r3", "c"))
    assert ids(made) == ["r1"]
    made.finish("r1")
    assert ids(made) == ["r3"]


def test_a_backfill_keeps_within_its_own_limit_too() -> None:
    made = admission(16, *(queued(f"r{n}", "b", limit=1) for n in range(3)), queued("r9", "c", limit=2))
    assert sorted(ids(made)) == ["r0", "r9"]
    made.finish("r0")
    assert ids(made) == ["r1"]


def test_a_raised_limit_admits_more() -> None:
    made = admission(1, queued("r1"), queued("r2"))
    ids(made)
    made.configure("d", 2, False)
    assert ids(made) == ["r2"]


def test_a_run_that_was_found_active_takes_a_place() -> None:
    made = admission(1, queued("r2"))
    made.occupy(queued("r1"))
    made.occupy(queued("r1"))
    assert ids(made) == []
    made.finish("r1")
    assert ids(made) == ["r2"]


def test_a_revived_run_that_was_queued_does_not_start_a_second_time() -> None:
    made = admission(2, queued("r1"))
    made.occupy(queued("r1"))
    assert ids(made) == []
    assert (made.queued, made.active) == (0, 1)


def test_a_run_that_is_cancelled_while_it_waits_takes_no_place() -> None:
    made = admission(1, queued("r1"), queued("r2"))
    made.finish("r1")
    assert ids(made) == ["r2"]


def test_a_refused_admission_waits_again_and_frees_its_place() -> None:
    made = admission(1, queued("r1"))
    [run] = made.admit()
    made.requeue(run.run_id, run)
    assert (made.queued, made.active) == (1, 0)
    assert ids(made) == ["r1"]


def test_what_is_told_twice_counts_once() -> None:
    made = admission(2, queued("r1"), queued("r1"))
    assert ids(made) == ["r1"]
    made.finish("r1")
    made.finish("r1")
    assert made.active == 0
    made.enqueue(queued("r1"))
    assert ids(made) == ["r1"]


# ── slots ──


def slots(workers: int = 1, made: Slots | None = None) -> Slots:
    made = made or Slots()
    for n in range(workers):
        made.add(f"w{n}", "default", "i1")
    return made


def holders(made: Slots) -> list[str | None]:
    return [slot.holder for slot in made.slots.values()]


def test_a_free_slot_is_leased_to_who_has_ready_tasks() -> None:
    made = slots(2)
    made.demand("A", {MANUAL: 1})
    assert made.grants(0.0) == [Grant("A", "w0", "i1", 1)]
    assert (holders(made), made.waiting, made.wants("A")) == (["A", None], 0, False)


def test_no_slot_is_idle_while_tasks_wait() -> None:
    made = slots(3)
    made.demand("A", {MANUAL: 5})
    made.demand("B", {BACKFILL: 1})
    made.grants(0.0)
    assert None not in holders(made)


def test_who_wakes_goes_first_then_who_has_less() -> None:
    made = slots(3, Slots(wakes=WAKES))
    made.demand("A", {BACKFILL: 9})
    made.demand("B", {MANUAL: 1})
    made.demand("C", {BACKFILL: 9})
    assert [grant.holder for grant in made.grants(0.0)] == ["B", "A", "C"]


def test_slots_go_to_the_leaf_that_was_served_least_wherever_it_waits() -> None:
    made = slots(1)
    made.demand("A", {("t", "manual", "d"): 9})
    made.demand("B", {("u", "manual", "d"): 9})
    made.served("A", {("default", "t", "manual", "d"): 3.0, ("default", "u", "manual", "d"): 5.0})
    assert [grant.holder for grant in made.grants(0.0)] == ["A"]


def test_a_holder_that_serves_only_who_is_ahead_gives_a_slot_to_who_is_behind() -> None:
    made, ahead, behind = slots(3), ("t", "manual", "d"), ("u", "manual", "d")
    made.demand("A", {ahead: 9})
    made.grants(0.0)
    made.demand("B", {behind: 9})
    made.release("A", "w2", 3)
    made.served("A", {("default", *ahead): 0.1})
    [mine] = made.grants(0.0)
    assert mine.holder == "B"
    made.served("A", {("default", *ahead): 2.0})
    made.served("B", {("default", *behind): 1.0})
    assert made.yields(QUANTUM_S / 2) == []
    assert made.yields(QUANTUM_S) == [Yield("A", "w0", 1)]
    assert made.yields(9.0) == [], "one at a time"


def test_a_released_slot_is_free_for_the_next() -> None:
    made = slots()
    made.demand("A", {MANUAL: 1})
    [grant] = made.grants(0.0)
    made.demand("B", {MANUAL: 1})
    assert made.grants(0.0) == []
    made.release("A", "w0", grant.lease)
    assert made.grants(0.0) == [Grant("B", "w0", "i1", 2)]


def test_an_old_or_foreign_release_changes_nothing() -> None:
    made = slots()
    made.demand("A", {MANUAL: 1})
    made.grants(0.0)
    for holder, lease in (("A", 0), ("A", 2), ("B", 1)):
        made.release(holder, "w0", lease)
    made.release("A", "nowhere", 1)
    assert holders(made) == ["A"]


def test_who_has_most_is_asked_to_yield_to_who_has_none() -> None:
    made = slots(2)
    made.demand("A", {MANUAL: 9})
    made.grants(0.0)
    made.demand("B", {MANUAL: 1})
    assert len(made.yields(0.0)) == 1
    assert made.yields(0.0) == []


def test_a_single_lease_is_held_for_a_quantum_before_it_has_to_go() -> None:
    made = slots()
    made.demand("A", {MANUAL: 9})
    made.grants(0.0)
    made.demand("B", {MANUAL: 1})
    assert made.yields(QUANTUM_S / 2) == []
    assert made.next_review_s(QUANTUM_S / 2) == QUANTUM_S / 2
    assert made.yields(QUANTUM_S) == [Yield("A", "w0", 1)]
    assert made.next_review_s(QUANTUM_S) is None


def test_while_a_slot_is_on_its_way_back_there_is_nothing_to_review() -> None:
    made = slots(2)
    made.demand("A", {MANUAL: 9})
    made.grants(0.0)
    made.demand("B", {MANUAL: 1})
    assert made.yields(0.0)
    assert made.next_review_s(5.0) is None


def test_a_review_that_is_due_finds_a_slot_to_ask_back() -> None:
    for since_s in (0.1, 0.7, 4.225, 1e5 / 3):
        made = slots()
        made.demand("A", {MANUAL: 9})
        made.grants(since_s)
        made.demand("B", {MANUAL: 1})
        wait_s = made.next_review_s(since_s)
        assert wait_s is not None
        now_s = since_s + wait_s
        assert made.next_review_s(now_s) == 0.0 or made.next_review_s(now_s + 1e-9) == 0.0
        assert bool(made.yields(now_s)) == (made.next_review_s(now_s) is None)


def test_nobody_yields_while_nobody_waits() -> None:
    made = slots()
    made.demand("A", {MANUAL: 9})
    made.grants(0.0)
    assert made.yields(99.0) == []
    assert made.next_review_s(99.0) is None


def test_a_draining_slot_is_asked_back_and_given_to_nobody() -> None:
    made = slots(2)
    made.demand("A", {MANUAL: 9})
    made.grants(0.0)
    made.drain("w0")
    assert made.yields(0.0) == [Yield("A", "w0", 1)]
    made.release("A", "w0", 1)
    made.demand("A", {MANUAL: 9})
    assert made.grants(0.0) == []


def test_a_new_incarnation_ends_the_lease_and_the_same_one_does_not() -> None:
    made = slots()
    made.demand("A", {MANUAL: 1})
    made.grants(0.0)
    made.add("w0", "default", "i1")
    assert holders(made) == ["A"]
    made.add("w0", "default", "i2")
    assert holders(made) == [None]


def test_a_holder_that_lost_its_memory_has_neither_leases_nor_demand() -> None:
    made = slots(2)
    made.demand("A", {MANUAL: 3})
    made.grants(0.0)
    made.forget("A")
    assert (holders(made), made.waiting, made.held("A")) == ([None, None], 0, 0)


def test_a_holder_that_has_ended_counts_as_never_served_and_so_do_its_claims() -> None:
    claim = "A\nneed"
    for ended, first in (("A", claim), ("C", "B")):
        made = slots()
        made.demand(claim, {MANUAL: 1})
        (grant,) = made.grants(0.0)
        made.release(claim, grant.worker, grant.lease)
        made.end(ended)
        for holder in (claim, "B"):
            made.demand(holder, {MANUAL: 1})
        assert [grant.holder for grant in made.grants(0.0)] == [first]


def test_holders_that_come_and_go_leave_nothing_behind() -> None:
    slots = Slots()
    slots.add("worker-default-0", "default", "i")
    for number in range(50):
        for bidder in (f"run:{number}", f"run:{number}\nneed"):
            slots.demand(bidder, {MANUAL: 1})
            [grant] = slots.grants(1.0)
            slots.release(bidder, grant.worker, grant.lease)
            slots.demand(bidder, {})
        slots.end(f"run:{number}")
    assert slots._served == {}


def test_a_lease_of_an_earlier_scheduler_is_taken_over_and_its_number_is_not_used_again() -> None:
    made = slots(2)
    made.adopt("A", "w0", 41, 0.0)
    made.adopt("B", "w0", 50, 0.0)
    made.adopt("A", "nowhere", 60, 0.0)
    made.demand("B", {MANUAL: 1})
    assert holders(made) == ["A", None]
    assert made.grants(0.0) == [Grant("B", "w1", "i1", 42)]


def test_a_lost_worker_has_no_slot() -> None:
    made = slots()
    made.remove("w0")
    made.remove("w0")
    made.demand("A", {MANUAL: 1})
    assert made.grants(0.0) == []


def test_however_many_wait_a_holder_keeps_one_lease_for_its_quantum() -> None:
    slots = Slots()
    for worker in ("w0", "w1"):
        slots.add(worker, "default", "i")
    slots.demand("first", {MANUAL: 4})
    assert len(slots.grants(0.0)) == 2
    slots.demand("second", {BACKFILL: 1})
    slots.demand("third", {BACKFILL: 1})
    assert len(slots.yields(0.0)) == 1
    assert slots.yields(QUANTUM_S / 2) == []
    assert len(slots.yields(QUANTUM_S)) == 1


# ── backfills that are paused, or capped anew ─────────────────────────────────────────────────────


def test_windows_of_a_paused_backfill_wait_and_others_do_not() -> None:
    made = Admission()
    made.configure("d", 16, False)
    made.shape("d", "b1", None, True)
    for run in (queued("r1", "b1"), queued("r2", "b2"), queued("r3")):
        made.enqueue(run)
    assert sorted(run.run_id for run in made.admit()) == ["r2", "r3"]
    made.shape("d", "b1", None, False)
    assert [run.run_id for run in made.admit()] == ["r1"]


def test_another_cap_holds_from_then_on_whatever_windows_were_queued_with() -> None:
    made = Admission()
    made.configure("d", 16, False)
    for n in range(6):
        made.enqueue(queued(f"r{n}", "b1", limit=1))
    assert len(made.admit()) == 1
    made.shape("d", "b1", 3, False)
    assert len(made.admit()) == 2
    made.shape("d", "b1", 1, False)
    made.finish("r0")
    assert made.admit() == [], "two still run"
    made.shape("d", "b1", None, False)
    assert len(made.admit()) == 3


def test_a_window_that_goes_on_after_its_paused_backfill_has_ended_is_a_run_like_any_other() -> None:
    made = Admission()
    made.configure("d", 16, False)
    made.shape("d", "b1", None, True)
    made.enqueue(queued("r1", "b1"))
    assert made.admit() == []
    made.unshape("b1")
    made.enqueue(queued("r2", "b1"))
    assert [run.run_id for run in made.admit()] == ["r1", "r2"]


def test_what_was_served_in_one_pool_does_not_count_in_another() -> None:
    made, ahead, behind = slots(1), ("t", "manual", "d"), ("u", "manual", "d")
    made.add("g0", "gpu", "i1")
    made.served("A", {("default", *ahead): 5.0, ("gpu", *behind): 5.0})
    for pool, holder in (("default", "{}"), ("gpu", "{}\nneed")):
        made.demand(holder.format("A"), {ahead: 9}, pool)
        made.demand(holder.format("B"), {behind: 9}, pool)
    made.served("A", {("default", *ahead): 5.0, ("gpu", *behind): 5.0})
    assert {grant.worker: grant.holder for grant in made.grants(0.0)} == {"w0": "B", "g0": "A\nneed"}


def test_tenants_share_the_slots_of_a_pool_by_weight_whoever_bids_for_them() -> None:
    made, leaves = Slots({(1, "manual"): 4.0}), [("t", "manual", "d"), ("u", "manual", "d")]
    made.weigh(("u",), 3.0)
    made.add("g0", "gpu", "i1")
    turns = ""
    for _ in range(40):
        for leaf in leaves:
            made.demand(f"A\n{leaf[0]}", {leaf: 9}, "gpu")
        [grant] = made.grants(0.0)
        turns += grant.holder[-1]
        made.served("A", {("gpu", *(grant.leaf or ())): 0.1})
        made.release(grant.holder, grant.worker, grant.lease)
    assert turns.count("u") == 30

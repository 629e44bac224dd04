"""orchestrator.autoscale: how many workers a pool should have."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.autoscale import STEP_S, Course, Load, needed, steer
from orchestrator.pools import PoolSpec

ROUND_S = 2.0


def elastic(**changes: float | int) -> PoolSpec:
    return PoolSpec(**{"min": 0, "max": 8, "idle_timeout_s": 10.0, "scale_up_wait_s": 1.0, "step": 4} | changes)  # type: ignore[arg-type]  # numbers by name


def test_the_first_worker_of_a_pool_at_zero_comes_at_once() -> None:
    assert steer(elastic(), Load(waiting=3), Course(0), 0.0).wanted == 3


def test_more_come_only_once_tasks_have_waited() -> None:
    course = Course(2)
    assert steer(elastic(), Load(waiting=3, waiting_s=0.9, busy=2), course, 0.0).wanted == 2
    assert steer(elastic(), Load(waiting=3, waiting_s=1.0, busy=2), course, 0.0).wanted == 5


def test_a_step_is_bounded_and_the_next_one_comes_later() -> None:
    load = Load(waiting=100, waiting_s=5.0)
    first = steer(elastic(), load, Course(1), 0.0)
    assert first.wanted == 5
    assert steer(elastic(), load, first, STEP_S - 0.1).wanted == 5
    assert steer(elastic(), load, first, STEP_S).wanted == 8


def test_one_more_worker_is_for_so_many_tasks() -> None:
    assert needed(elastic(tasks_per_worker=10), Load(waiting=11, busy=1)) == 3
    assert needed(elastic(tasks_per_worker=10), Load(waiting=0, busy=1)) == 1


def test_surplus_workers_end_after_the_idle_time_and_not_below_what_was_needed_meanwhile() -> None:
    course, at_s = Course(8), 0.0
    for busy in (2, 3, 2, 1, 1):
        course = steer(elastic(), Load(busy=busy), course, at_s)
        assert course.wanted == 8
        at_s += ROUND_S
    assert steer(elastic(), Load(busy=1), course, at_s).wanted == 3


def test_a_load_that_comes_back_within_the_idle_time_moves_nothing() -> None:
    course = Course(4)
    for step in range(100):
        load = Load(waiting=4) if step % 4 == 0 else Load()
        course = steer(elastic(), load, course, step * ROUND_S)
        assert course.wanted == 4


def test_bounds_that_were_changed_count_at_once() -> None:
    assert steer(elastic(max=2), Load(busy=8), Course(8), 0.0).wanted == 2
    assert steer(elastic(min=3), Load(), Course(0), 0.0).wanted == 3


specs = st.builds(
    lambda least, more, idle_s, per, wait_s, step: PoolSpec(
        min=least,
        max=least + more,
        idle_timeout_s=idle_s,
        tasks_per_worker=per,
        scale_up_wait_s=wait_s,
        step=step,
    ),
    st.integers(0, 5),
    st.integers(0, 20),
    st.floats(0, 60),
    st.integers(1, 20),
    st.floats(0, 10),
    st.integers(1, 5),
)
loads = st.builds(Load, st.integers(0, 200), st.floats(0, 100), st.integers(0, 25))


@given(specs, st.lists(st.tuples(loads, st.floats(0, 30)), max_size=30), st.integers(0, 40))
def test_there_are_never_fewer_than_min_nor_more_than_max(
    spec: PoolSpec, history: list[tuple[Load, float]], at_first: int
) -> None:
    course, now_s = Course(at_first), 0.0
    for load, later_s in history:
        before, now_s = course, now_s + later_s
        course = steer(spec, load, course, now_s)
        assert spec.min <= course.wanted <= spec.max
        assert course.wanted <= max(spec.min, min(spec.max, before.wanted)) + spec.step


@given(specs, st.integers(0, 200), st.integers(0, 40))
def test_under_a_constant_load_it_gets_to_what_is_needed_and_stays_there(
    spec: PoolSpec, tasks: int, at_first: int
) -> None:
    """`tasks` ready or running tasks that never end: workers take them as soon as they are there."""
    course, now_s, waited_s, seen = Course(at_first), 0.0, 0.0, []
    bound = int((spec.idle_timeout_s + spec.scale_up_wait_s) / ROUND_S) + spec.max + 5
    for _ in range(2 * bound):
        busy = min(tasks, course.wanted)
        waiting = tasks - busy
        waited_s = waited_s + ROUND_S if waiting else 0.0
        course = steer(spec, Load(waiting, waited_s, busy), course, now_s)
        seen.append(course.wanted)
        now_s += ROUND_S
    assert len(set(seen[bound:])) == 1, "it never settles"
    changes = [after - before for before, after in pairwise(seen) if after != before]
    assert all(change > 0 for change in changes) or all(change < 0 for change in changes), "it went up and down"
    if spec.tasks_per_worker == 1:
        assert seen[-1] == max(spec.min, min(spec.max, tasks))


@given(specs.filter(lambda spec: spec.max > 0), st.integers(1, 200), st.floats(0, 1000))
def test_ready_work_gets_a_worker_at_once_where_there_is_none(spec: PoolSpec, tasks: int, now_s: float) -> None:
    assert steer(spec, Load(waiting=tasks), Course(0), now_s).wanted >= 1


@given(specs, st.lists(st.tuples(loads, st.floats(0, 30)), max_size=10), st.integers(0, 40))
def test_a_pool_without_work_gets_to_its_least_within_the_idle_time(
    spec: PoolSpec, history: list[tuple[Load, float]], at_first: int
) -> None:
    course, now_s = Course(at_first), 0.0
    for load, later_s in history:
        now_s += later_s
        course = steer(spec, load, course, now_s)
    # what was needed before the load ended counts for one idle time, and then no more
    for _ in range(2):
        course = steer(spec, Load(), course, now_s)
        now_s += spec.idle_timeout_s + 0.001
        course = steer(spec, Load(), course, now_s)
    assert course.wanted == spec.min

"""When a task starts, given how the tasks it waits for have ended: trigger rules.

    upstreams end ──▶ good | bad | passed over ──▶ tally of each dependent ──judge──▶ wait | start | skip | give up

| rule                          | starts when                           | otherwise                                  |
|-------------------------------|---------------------------------------|--------------------------------------------|
| `all_success`                 | all are good                          | one bad: give up; else skip                |
| `all_failed`                  | all are bad                           | skip                                       |
| `all_done`                    | all have ended                        |                                            |
| `one_success`                 | the first good one ends               | all passed over: skip; else give up        |
| `one_failed`                  | the first bad one ends                | skip                                       |
| `none_failed`                 | all have ended, none is bad           | give up                                    |
| `none_failed_min_one_success` | all have ended, none is bad, one good | one bad: give up; else skip                |
| `always`                      | at once                               |                                            |
| of a teardown                 | all have ended, one setup is good     | all setups passed over: skip; else give up |
| of a compensation             | the run says so (`compensation.py`)   | skip                                       |

A task without upstreams starts at once, whatever its rule. The rules and what follows from them are Airflow's
(https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#trigger-rules), with two differences.
What becomes of a task never depends on the order in which its upstreams end: it is passed over only once no upstream
that is still open could make it give up. And a task that a *person* skips is good: dependents proceed as if it were
done (contracts/dags.md, section 3); passed over is what a branch, a rule or the task itself skipped.

A tally is one number, so that one step of an upstream costs one addition per dependent, whatever the rule: upstreams
that have not ended, plus _BAD for each bad one, plus _PASSED for each that was passed over. It is 0 when all are good.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING, assert_never

from orchestrator import compensation, conduct, mapped
from orchestrator.definition import TriggerRule
from orchestrator.task import PARKED, TERMINAL, TaskState

if TYPE_CHECKING:
    from orchestrator.run_state import Run

_BITS = 20
_MASK = (1 << _BITS) - 1
_BAD = 1 << _BITS
_PASSED = 1 << 2 * _BITS
_GOOD, _FAILED, _PASSED_OVER = -1, _BAD - 1, _PASSED - 1

_S = TaskState
#: task state -> what it adds to the tally of each dependent; a skipped task counts as if a person had skipped it
_WORTH = {
    _S.PENDING: 0,
    _S.RUNNING: 0,
    _S.RETRYING: 0,
    _S.SUSPENDED: 0,
    _S.WAITING: 0,
    _S.SUCCEEDED: _GOOD,
    _S.SKIPPED: _GOOD,
    _S.FAILED: _FAILED,
    _S.TIMED_OUT: _FAILED,
    _S.CANCELLED: _FAILED,
    _S.UPSTREAM_FAILED: _FAILED,
}


class Verdict(Enum):
    """What a rule says about a task that has not started."""

    WAIT = auto()
    START = auto()
    #: it is passed over
    SKIP = auto()
    #: it is `upstream_failed`
    GIVE_UP = auto()


_WAIT, _START, _SKIP, _GIVE_UP = Verdict.WAIT, Verdict.START, Verdict.SKIP, Verdict.GIVE_UP


def worth(state: TaskState, by: str) -> int:
    """What a task in `state` adds to the tally of each dependent; `by` is who skipped it, "" = a person."""
    return _PASSED_OVER if by and state is TaskState.SKIPPED else _WORTH[state]


def judge(rule: TriggerRule, parents: int, tally: int) -> Verdict:
    """What `rule` says with so many upstreams and that tally."""
    if parents == 0:
        return _START
    still, bad, passed = tally & _MASK, tally >> _BITS & _MASK, tally >> 2 * _BITS
    good = parents - still - bad - passed
    match rule:
        case "all_success":
            return _GIVE_UP if bad else _WAIT if still else _SKIP if passed else _START
        case "all_failed":
            return _SKIP if good or passed else _WAIT if still else _START
        case "all_done":
            return _WAIT if still else _START
        case "one_success":
            return _START if good else _WAIT if still else _GIVE_UP if bad else _SKIP
        case "one_failed":
            return _START if bad else _WAIT if still else _SKIP
        case "none_failed":
            return _GIVE_UP if bad else _WAIT if still else _START
        case "none_failed_min_one_success":
            return _GIVE_UP if bad else _WAIT if still else _START if good else _SKIP
        case "always":
            return _START
    assert_never(rule)


def judge_teardown(tally: int, setups: Iterable[int]) -> Verdict:
    """The same of a teardown; `setups` is what each of its setups is worth."""
    if tally & _MASK:
        return _WAIT
    ends = set(setups)
    if _GOOD in ends:
        return _START
    return _SKIP if ends == {_PASSED_OVER} else _GIVE_UP


# ── what a run keeps of it, task by task ──


def verdict(run: Run, position: int) -> Verdict:
    """What the trigger rule of a task of a DAG says."""
    if position >= run.compiled.size:
        return _START if mapped.goes(run, position) else _WAIT
    setups = run.compiled.setups.get(position)
    if setups is None:
        if position in run.compiled.undoes:
            return _START if compensation.its_turn(run, position) else _WAIT
        rule = run.compiled.specs[position].trigger_rule
        return judge(rule, len(run.compiled.graph.parents[position]), run.waits[position])
    tasks = run.tasks
    return judge_teardown(run.waits[position], [worth(tasks[i].state, tasks[i].skipped_by) for i in setups])


def holds(run: Run, position: int) -> bool:
    """Is what it waits for as it has to be? (I3)"""
    if not run.compiled.ruled:
        return run.waits[position] == 0
    return verdict(run, position) is _START


def success_rules_out(run: Run, position: int) -> bool:
    """Would its success make it certain that some dependent does not start?"""
    compiled = run.compiled
    if compiled.undoes and run.advancing == 1 and compiled.advances(position):
        return True  # it is decided what is undone, and what is not
    for child in compiled.graph.children[position]:
        if child in compiled.undoes:
            continue
        tally = run.waits[child] + _GOOD
        if child in compiled.setups:
            if not tally & _MASK:
                return True  # perhaps: how its setups ended decides
            continue
        said = judge(compiled.specs[child].trigger_rule, len(compiled.graph.parents[child]), tally)
        if (said is _SKIP or said is _GIVE_UP) and run.tasks[child].state not in TERMINAL:
            return True
    return False


def is_owed(run: Run, teardown: int) -> bool:
    """It has not ended, and one of its setups is good: it is owed whatever becomes of the rest."""
    setups = [run.tasks[i] for i in run.compiled.setups[teardown]]
    return run.tasks[teardown].state not in TERMINAL and any(worth(t.state, t.skipped_by) == _GOOD for t in setups)


def tell_dependents(run: Run, position: int, before: TaskState, by: str) -> None:
    """It was in `before`, skipped `by`: now the tallies of its dependents are right, and who may start is offered."""
    waits, tasks, compiled = run.waits, run.tasks, run.compiled
    task = tasks[position]
    if before is _S.RUNNING and task.state is _S.SUCCEEDED:
        change = _GOOD
    else:
        change = worth(task.state, task.skipped_by) - worth(before, by)
        run.passed_over += _is_passed_over(task.state, task.skipped_by) - _is_passed_over(before, by)
    if compiled.ruled:
        for child in compiled.graph.children[position]:
            _tell_one(run, child, change)
        return
    for child in compiled.graph.children[position]:
        waits[child] += change
        if waits[child] == 0 and tasks[child].state is TaskState.PENDING:
            conduct.offer(run, child)
        elif run.in_line:
            run.in_line.pop(child, None)


def _tell_one(run: Run, child: int, change: int) -> None:
    could = holds(run, child)
    run.waits[child] += change
    can = holds(run, child)
    if run.in_line and not can:
        run.in_line.pop(child, None)
    if could or not can:
        return
    task = run.tasks[child]
    if task.state is TaskState.PENDING:
        conduct.offer(run, child)
    elif task.state in PARKED and task.due is not None:  # a wake that came meanwhile let it drop
        task.due = max(task.due, run.told_at)
        heapq.heappush(run.due, (task.due, child, task.attempt))


def _is_passed_over(state: TaskState, by: str) -> bool:
    return by != "" and state is TaskState.SKIPPED

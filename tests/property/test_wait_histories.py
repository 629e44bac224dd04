"""Any history of signals, votes, sleeps and restarts is legal: nothing is taken twice, nothing ends before its time.

An oracle that knows nothing of the machine keeps its own list of what was sent and who may take it. "Restart" reads the
run again from its events at any moment, as after the death of everything.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator import run as runs
from orchestrator import run_commands, run_duties
from orchestrator.definition import TaskSpec
from orchestrator.errors import Refused
from orchestrator.run_state import ENDED, RunState, going
from orchestrator.task import TERMINAL, TaskState
from orchestrator.wait_decisions import LateVote
from tests.builders import Story
from tests.invariants import check_history, check_owed, check_replay

SPANS = (0, 1, 5, 30)
NAMES = ("go", "stop")
PEOPLE = ("ada", "bob", "cid")


def random_tasks(rng: Random) -> list[TaskSpec]:
    """Up to eight tasks that wait, or work, after some of those before them."""
    tasks = []
    for n in range(rng.randint(1, 8)):
        above = tuple(f"t{i}" for i in range(n) if rng.random() < 0.3)
        kind = rng.choice(("core.wait", "core.signal", "core.signal", "core.approval", "core.noop"))
        params: dict[str, object] = {}
        match kind:
            case "core.wait":
                params = {"seconds": rng.choice(SPANS)}
            case "core.signal":
                params = {"name": rng.choice(NAMES), "timeout_s": rng.choice((5, 30, 3600))}
                params["on_timeout"] = rng.choice(("fail", "skip", {"value": "none"}))
            case "core.approval":
                params = {"prompt": "?", "quorum": rng.choice((1, 1, 2)), "expires_s": rng.choice((5, 3600))}
                params["on_expiry"] = rng.choice(("fail", "skip", "approve", "expired"))
        rule = rng.choice(("all_success", "all_success", "all_done", "one_success", "none_failed"))
        tasks.append(
            TaskSpec(f"t{n}", kind, above, params=params, trigger_rule=rule, retries=2 * (kind == "core.noop"))
        )
    return tasks


class Player:
    """Lets things happen to one run, and keeps its own account."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.story = Story(*random_tasks(self.rng), run_timeout_s=self.rng.choice((None, None, 300.0)))
        #: name -> what was accepted of it and not taken yet, by this account
        self.sent: dict[str, list[str]] = defaultdict(list)
        self.ids: set[str] = set()
        self.count = 0
        self.read = 0

    def play(self, moves: int) -> None:
        for _ in range(moves):
            kind = self.rng.choice(MOVES)
            before = len(self.story.events)
            try:
                getattr(self, kind)()
            except LateVote as late:
                if late.told is not None:
                    runs.apply(self.story.run, late.told)
                    self.story.events.append(late.told)
            except Refused:
                assert len(self.story.events) == before
            self.account()
            check_owed(self.story.run)

    def account(self) -> None:
        """What was taken was sent first, and is gone then."""
        for event in self.story.events[self.read :]:
            match event:
                case e.SignalReceived():
                    self.sent[event.name].append(msgspec.json.decode(event.data))
                case e.SignalConsumed():
                    self.taken = (event.task, self.sent[event.name].pop(0))
                case e.TaskSucceeded() if getattr(self, "taken", ("", ""))[0] == event.task:
                    assert event.value is not None
                    assert msgspec.json.decode(event.value.inline) == self.taken[1]
                    self.taken = ("", "")
                case e.RunRestarted():
                    self.sent.clear()
                    self.ids.clear()
        self.read = len(self.story.events)
        kept = self.story.run.standby.signals if self.story.run.standby is not None else {}
        told = {name: [msgspec.json.decode(each.data) for each in queue] for name, queue in kept.items()}
        assert told == {name: sent for name, sent in self.sent.items() if sent}
        if self.story.run.state is RunState.RUNNING:
            assert not [name for name in told if self.waits_for(name)], (
                "a signal is kept although somebody waits for it"
            )

    def waits_for(self, name: str) -> bool:
        tasks = zip(self.story.run.compiled.specs, self.story.run.tasks, strict=True)
        return any(t.state is TaskState.WAITING and spec.params.get("name") == name for spec, t in tasks)

    # ── what may happen ──

    def start(self) -> None:
        self.story.start()

    def signal(self) -> None:
        self.count += 1
        signal_id = f"s{self.rng.randint(0, 8)}" if self.rng.random() < 0.4 else f"n{self.count}"
        again = signal_id in self.ids
        new = self.story.signal(self.rng.choice(NAMES), f"data {self.count}", signal_id)
        assert bool(new) != again, "a duplicate has no effect, and anything else has"
        self.ids.add(signal_id)

    def vote(self) -> None:
        attempt = self.rng.choice((None, None, 1, 2))
        choice = self.rng.choice(("approve", "reject", "perhaps"))
        self.story.vote(self.named(), choice, self.rng.choice(PEOPLE), attempt=attempt)

    def work(self) -> None:
        if going(self.story.run) and (taken := run_duties.take_ready(self.story.run, 1)):
            self.story.do(run_commands.Begin(tuple(taken), "w", "i"))

    def end(self) -> None:
        if live := self.live():
            outcome = self.rng.choice(("ok", "ok", "error", "skipped"))
            self.story.do(self.story.report(live, outcome, error=outcome))

    def sleep(self) -> None:
        if live := self.live():
            self.story.suspend(live, self.rng.choice(SPANS), call=self.rng.randint(1, 3))

    def tick(self) -> None:
        """Time passes, and a shell that looks at it when a timer says so."""
        story = self.story
        target = story.now + timedelta(seconds=self.rng.choice((0, 1, 4, 20, 100)))
        while (at := run_duties.next_wake(story.run)) is not None and at <= target:
            story.wait(max(0.0, (at - story.now).total_seconds()))
            self.look()
            if run_duties.next_wake(story.run) == at and story.run.state is not RunState.RUNNING:
                break
        story.wait(max(0.0, (target - story.now).total_seconds()))

    def look(self) -> None:
        story = self.story
        limit = run_duties.deadline(story.run)
        if limit is not None and limit <= story.now:
            story.do(run_commands.TimeOut())
            return
        run_duties.wake(story.run, story.now)
        story.elapse()

    def restart_everything(self) -> None:
        self.story.run = self.story.replayed()
        run_duties.wake(self.story.run, self.story.now)
        self.look()

    def pause(self) -> None:
        self.story.do(run_commands.Pause())

    def resume(self) -> None:
        self.story.do(run_commands.Resume())

    def skip(self) -> None:
        self.story.do(run_commands.SkipTask(self.named()))

    def retry(self) -> None:
        self.story.do(run_commands.RetryTask(self.named()))

    def cancel(self) -> None:
        self.story.do(run_commands.Cancel())
        assert self.story.run.state is RunState.CANCELLED, "I10"

    def run_again(self) -> None:
        self.story.do(run_commands.Restart(1))

    def named(self) -> str:
        return self.rng.choice(self.story.run.compiled.graph.names)

    def live(self) -> str | None:
        run = self.story.run
        live = [n for n, t in zip(run.compiled.graph.names, run.tasks, strict=True) if t.state is TaskState.RUNNING]
        return self.rng.choice(live) if live else None


_OFTEN = ("signal",) * 6 + ("vote",) * 6 + ("tick",) * 6 + ("work",) * 6 + ("end",) * 5 + ("restart_everything",) * 3
MOVES = (
    *_OFTEN,
    "start",
    "start",
    "sleep",
    "sleep",
    "pause",
    "resume",
    "resume",
    "skip",
    "retry",
    "cancel",
    "run_again",
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_signals_votes_and_timers_hold_through_any_history(seed: int) -> None:
    player = Player(seed)
    if seed % 4:
        player.start()
    player.play(60)
    story = player.story
    again = story.replayed()
    run_duties.wake(again, story.now)
    run_duties.wake(story.run, story.now)
    check_replay(story.run, again)
    check_history(story.events, lambda version: story.compiled(version).definition)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_a_run_that_is_left_alone_ends_by_time(seed: int) -> None:
    player = Player(seed)
    player.play(25)
    story = player.story
    for _ in range(200):
        if story.run.state in ENDED:
            break
        for step in (player.start, player.resume, player.work, player.end):
            try:
                step()
            except Refused:
                continue
        if not story.run.running and (at := run_duties.next_wake(story.run)) is not None:
            story.wait(max(0.0, (at - story.now).total_seconds()))
            player.look()
    assert story.run.state in ENDED, "I10: it never ends"
    assert all(task.state in TERMINAL for task in story.run.tasks), "I6"


@pytest.mark.parametrize("restarts", [0, 1, 7])
def test_a_thousand_timers_fire_once_each_in_their_order_also_over_restarts(restarts: int) -> None:
    rng = Random(restarts)
    tasks = [TaskSpec(f"t{n}", "core.wait", params={"seconds": rng.randint(0, 500)}) for n in range(1000)]
    story = Story(*tasks).start()
    while story.run.state is RunState.RUNNING:
        at = run_duties.next_wake(story.run)
        assert at is not None
        story.wait((at - story.now).total_seconds()).elapse()
        if restarts and rng.random() < restarts / 100:
            story.run = story.replayed()
    ends = [event for event in story.events if isinstance(event, e.TaskSucceeded)]
    due = {task.id: story.events[0].at + timedelta(seconds=task.params["seconds"]) for task in tasks}
    assert {event.task: event.at for event in ends} == due
    assert len(ends) == 1000

"""actors.residents under any history: runs come, go, and are doubted, while messages for them keep coming.

A run is here or being read, never both, and read once at a time. Each message is handled or refused exactly once, those
for one run in the order in which they came; the inbox is held up exactly while an item of it waits.
"""

from __future__ import annotations

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.mail import Loaded, Redo, RunMessage, Told, Woken
from actors.turn import Turn
from orchestrator import run_commands
from orchestrator.streams import TimerFired
from tests.turn_builders import House, a_queued_run, a_run

RUNS = st.sampled_from(["run_1", "run_2", "run_3"])


class Histories(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.house = House()
        self.residents = self.house.residents
        self.sent = 0
        #: run -> numbers of messages that wait, in order; and of those that are over
        self.waiting: dict[str, list[int]] = defaultdict(list)
        self.over: list[int] = []
        #: numbers of messages -> messages, and the other way round
        self.numbers: dict[int, int] = {}
        self.kept: list[RunMessage] = []
        #: the next so many messages that are handled raise doubts about their run
        self.doubts = 0

    def handle(self, _turn: Turn, message: RunMessage) -> None:
        """As the actor does: with the run, if it is here."""
        run_id = message.item.run_id if isinstance(message, Told) else message.run_id  # type: ignore[union-attr]  # all that are sent have one
        number = self.numbers[id(message)]
        if number in self.waiting[run_id]:
            assert self.waiting[run_id].pop(0) == number, "overtaken"
        if self.residents.find(run_id, message) is None:
            self.waiting[run_id].append(number)
            return
        assert number not in self.over, "handled twice"
        self.over.append(number)
        if self.doubts:
            self.doubts -= 1
            self.residents.read_again(run_id)

    def new(self, message: RunMessage) -> RunMessage:
        self.sent += 1
        self.kept.append(message)
        self.numbers[id(message)] = self.sent
        return message

    @rule(run_id=RUNS, durable=st.booleans(), doubts=st.sampled_from((0, 0, 1, 2)))
    def message(self, run_id: str, durable: bool, doubts: int) -> None:
        self.doubts = doubts
        message = Told(TimerFired(run_id, "wake", 0), f"{self.sent}-0") if durable else Woken(run_id)
        self.handle(self.house.turn(), self.new(message))

    @rule(run_id=RUNS)
    def report(self, run_id: str) -> None:
        if run_id in self.residents.here:
            return
        message = self.new(Redo(run_id, run_commands.Lose("a", 1)))
        if self.residents.wait(message):
            self.waiting[run_id].append(self.sent)
        else:
            self.over.append(self.sent)  # late

    @precondition(lambda self: self.house.loads)
    @rule(data=st.data(), doubts=st.sampled_from((0, 0, 1, 2)))
    def read(self, data: st.DataObject, doubts: int) -> None:
        self.doubts = doubts
        run_id = data.draw(st.sampled_from(self.house.loads))
        self.house.loads.remove(run_id)
        whose = data.draw(st.sampled_from(("ours", "nobody's", "theirs", "missing")))
        hosted = {"ours": a_run, "nobody's": a_queued_run}.get(whose)
        loaded = Loaded(run_id, hosted(run_id) if hosted else None, "run-actor-7" if whose == "theirs" else "")
        refused = [] if hosted else self.waiting[run_id]
        self.residents.came(self.house.turn(), loaded, self.handle)
        assert (run_id in self.residents.here) == (whose == "ours" and run_id not in self.house.loads)
        if not hosted:
            self.over += refused
            self.waiting[run_id] = []

    @rule(run_id=RUNS)
    def doubt(self, run_id: str) -> None:
        self.residents.read_again(run_id)

    @rule(run_id=RUNS)
    def forget(self, run_id: str) -> None:
        self.residents.forget(run_id)

    @invariant()
    def a_run_is_here_or_on_its_way(self) -> None:
        assert len(set(self.house.loads)) == len(self.house.loads)
        assert not set(self.house.loads) & set(self.residents.here)
        assert self.residents.reading == bool(self.house.loads)

    @invariant()
    def no_message_is_lost(self) -> None:
        waiting = [number for numbers in self.waiting.values() for number in numbers]
        assert sorted(self.over + waiting) == list(range(1, self.sent + 1))
        assert {run_id for run_id, numbers in self.waiting.items() if numbers} <= set(self.house.loads)
        mail = any(isinstance(self.kept[number - 1], Told) for number in waiting)
        assert self.residents.mail_waits == mail


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)

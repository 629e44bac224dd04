"""actors.batch_book under any history: exchanges overtake, repeat and lose each other, owners die and come back.

One worker, one owner with growing epochs. Exchanges wait in a mailbox and are taken in any order, some twice; an answer
reaches the owner or is lost; control calls come at any instant. Whatever happens:

- an attempt starts at most once, and never after the owner was told that it did not and will not;
- an attempt ends as exactly one of reported and untouched; once a cancel was accepted, the first reason given decides;
- a report that no acknowledged answer carried is still there.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.attempt import LiveAttempt
from actors.batch_book import Batch, BatchBook, Key
from orchestrator.messages import Assignment, Exchange, Report
from tests.worker_builders import OWNER, exchange, task


class Histories(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.book = BatchBook(lambda: 0.0)
        self.mailbox: list[Exchange] = []
        self.sent: list[Exchange] = []
        self.running: tuple[Exchange, Batch] | None = None
        self.current: tuple[Assignment, LiveAttempt] | None = None
        self.epoch = 1
        self.number = 0
        self.names = 0
        self.fenced = 1
        self.starts: list[Key] = []
        self.reports: dict[Key, str] = {}
        #: first reason that was given, whether or not the attempt was there
        self.asked: dict[Key, str] = {}
        #: outcome that an accepted cancel promised
        self.promised: dict[Key, str] = {}
        #: told to the owner as not started
        self.untouched: set[Key] = set()
        #: carried by an answer that the present incarnation received, per batch
        self.carried: dict[int, set[Key]] = {}
        self.acknowledged: set[Key] = set()
        #: (epoch, batch) -> reports in the answers that were received
        self.delivered: dict[tuple[int, int], set[Key]] = {}

    # ── the owner ──

    @rule(count=st.integers(0, 3), ack=st.booleans())
    def send(self, count: int, ack: bool) -> None:
        self.number += 1
        tasks = []
        for _ in range(count):
            self.names += 1
            tasks.append(task(f"t{self.names}"))
        acks = tuple(self.carried) if ack else ()
        message = exchange(self.number, *tasks, epoch=self.epoch, acks=acks)
        self.mailbox.append(message)
        self.sent.append(message)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        self.mailbox.append(data.draw(st.sampled_from(self.sent)))

    @rule()
    def die_and_return(self) -> None:
        self.epoch += 1
        self.number = 0
        self.carried.clear()

    @rule()
    def ask_what_it_holds(self) -> None:
        live, reports = self.book.holding(OWNER, self.epoch)
        self.fenced = self.epoch
        assert not {_report_key(report) for report in reports} & set(live)
        assert self._unacknowledged() <= {_report_key(report) for report in reports}

    @rule(back=st.integers(0, 3))
    def take_back(self, back: int) -> None:
        _, reports, untouched = self.book.give_back(OWNER, self.number - back, self.epoch)
        self.fenced = self.epoch
        self._told(reports, untouched)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), reason=st.sampled_from(["cancelled", "timed_out"]))
    def cancel(self, data: st.DataObject, reason: str) -> None:
        tasks = [task for message in self.sent for task in message.tasks]
        if tasks:
            key = _key(data.draw(st.sampled_from(tasks)))
            first = self.asked.setdefault(key, reason)
            if self.book.cancel(key, reason):
                self.promised[key] = first

    # ── the worker ──

    @precondition(lambda self: self.mailbox and self.running is None)
    @rule(data=st.data())
    def take_from_mailbox(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.mailbox))
        self.mailbox.remove(message)
        current = message.epoch >= self.fenced
        self.fenced = max(self.fenced, message.epoch)
        if current and message.epoch == self.fenced:
            for number in message.acks:
                self.acknowledged |= self.carried_by(message.epoch, number)
        batch = self.book.open(message)
        assert batch is None or current, "an exchange of a former incarnation runs"
        if batch is None:
            self._answer(message, delivered=data.draw(st.booleans()))
        else:
            self.running = (message, batch)

    @precondition(lambda self: self.running is not None and self.current is None)
    @rule(delivered=st.booleans())
    def start(self, delivered: bool) -> None:
        assert self.running is not None
        message, batch = self.running
        self.current = self.book.start(batch)
        if self.current is not None:
            key = _key(self.current[0])
            assert key not in self.untouched, "started after it was given back"
            self.starts.append(key)
        else:
            self.book.close(batch)
            self.running = None
            self._answer(message, delivered)

    @precondition(lambda self: self.current is not None)
    @rule()
    def finish(self) -> None:
        assert self.running is not None
        assert self.current is not None
        (assignment, live), self.current = self.current, None
        outcome = live.end() or "ok"
        self.book.settle(self.running[1], Report(assignment.run_id, assignment.task, assignment.attempt, outcome))
        self.reports[_key(assignment)] = outcome

    # ── what must hold ──

    @invariant()
    def nothing_starts_twice(self) -> None:
        assert len(self.starts) == len(set(self.starts))

    @invariant()
    def an_accepted_cancel_decides(self) -> None:
        for key, outcome in self.reports.items():
            assert outcome == self.promised.get(key, outcome)

    @invariant()
    def reports_stay_until_acknowledged(self) -> None:
        kept = {_report_key(report) for report in self.book.holding(OWNER, None)[1]}
        assert self._unacknowledged() <= kept

    def _unacknowledged(self) -> set[Key]:
        return set(self.reports) - self.acknowledged

    def carried_by(self, epoch: int, number: int) -> set[Key]:
        """What the owner of `epoch` had received with the answer to `number` when it acknowledged it."""
        return self.delivered.get((epoch, number), set())

    def _answer(self, message: Exchange, delivered: bool) -> None:
        reports, untouched = self.book.answer(message)
        if message.epoch == self.epoch and delivered:
            self._told(reports, untouched)
            self.carried.setdefault(message.batch, set())
            first = self.delivered.setdefault((message.epoch, message.batch), set())
            first |= {_report_key(report) for report in reports}

    def _told(self, reports: list[Report], untouched: list[Key]) -> None:
        for report in reports:
            key = _report_key(report)
            assert key not in self.untouched, "reported and untouched"
            assert report.outcome == self.promised.get(key, report.outcome)
            assert self.reports.setdefault(key, report.outcome) == report.outcome
        for key in untouched:
            assert key not in self.reports, "untouched and reported"
            assert key not in self.promised, "untouched, though its cancel was accepted"
            self.untouched.add(key)


def _key(assignment: Assignment) -> Key:
    return (assignment.run_id, assignment.task, assignment.attempt)


def _report_key(report: Report) -> Key:
    return (report.run_id, report.task, report.attempt)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

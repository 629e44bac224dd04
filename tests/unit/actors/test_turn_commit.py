"""One commit a turn; what the journal does not take is read again, and what led to it is handled again or refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine

from actors.mail import Admitted, Asked, Redo, RunMessage, Woken
from actors.run_desk import RunDesk
from actors.turn_commit import TRIES_MAX, TurnCommit
from orchestrator import actor_codec, run_commands
from orchestrator.command import CommandReply
from orchestrator.control import Admission
from orchestrator.run_state import RunState
from orchestrator.steps import Commit, CommitResult
from tests.turn_builders import House, a_queued_run, a_run, asked, begin
from tests.virtual_time import virtually

NAME = "run-actor-0"


class Books(House):
    """Commits to a journal that answers as told: "ok", unless `verdicts` has something else for a run."""

    def __init__(self, *hosted: object) -> None:
        super().__init__(*hosted)  # type: ignore[arg-type]  # runs, as there
        self.commits: list[Commit] = []
        self.verdicts: dict[str, CommitResult] = {}
        self.posted: list[RunMessage] = []
        self.declined: list[Admission] = []
        #: answers of the journal that get lost
        self.lost = 0
        self.counts: list[tuple[str, int]] = []
        self.desk = RunDesk(self.posted.append)
        self.writer = TurnCommit(
            NAME,
            7,
            self,  # type: ignore[arg-type]  # of the journal the part that is asked
            self.residents,
            self.insist,
            self.posted.append,
            self.declined.append,
            lambda: self.counts,
        )

    async def commit(self, commit: Commit) -> list[CommitResult]:
        self.commits.append(commit)
        durable = (CommitResult(append.run_id, "ok", append.expected + append.count, NAME) for append in commit.appends)
        return [self.verdicts.get(result.run_id, result) for result in durable]

    async def insist(self, attempt: Callable[[], Awaitable[list[CommitResult]]]) -> list[CommitResult]:
        for _ in range(self.lost):
            await attempt()
        return await attempt()

    def says(self, status: str, run_id: str = "run_1", owner: str = NAME, reply: bytes = b"") -> None:
        self.verdicts[run_id] = CommitResult(run_id, status, 9, owner, reply)


def told(story: Callable[[], Coroutine[object, object, None]]) -> None:
    virtually(story())


def test_a_turn_that_changed_nothing_is_not_written() -> None:
    async def story() -> None:
        books = Books(a_run())
        assert await books.writer.make_durable(books.turn(), "5-0") == {}
        assert not books.commits

    told(story)


def test_all_that_a_turn_changed_is_one_commit_with_a_number_of_its_own() -> None:
    async def story() -> None:
        one, two = a_run("run_1"), a_run("run_2")
        books = Books(one, two)
        books.counts = [("slot_time_ms|t|manual", 3)]
        for task in ("a", "b"):
            turn = books.turn()
            begin(turn, one, task)
            begin(turn, two, task)
            assert await books.writer.make_durable(turn, "5-0") == {}
        assert [(each.turn, each.owner, each.epoch, each.cursor) for each in books.commits] == [
            (1, NAME, 7, "5-0"),
            (2, NAME, 7, "5-0"),
        ]
        assert [append.run_id for append in books.commits[1].appends] == ["run_1", "run_2"]
        assert ("slot_time_ms|t|manual", 3) in books.commits[0].counts
        assert not one.dirty

    told(story)


def test_a_commit_whose_answer_was_lost_is_sent_again_as_it_is() -> None:
    async def story() -> None:
        run = a_run()
        books, turn = Books(run), House().turn()
        books.lost = 2
        begin(turn, run, "a")
        await books.writer.make_durable(turn, None)
        assert len(books.commits) == 3
        assert books.commits[0] == books.commits[1] == books.commits[2]

    told(story)


def test_a_run_to_which_somebody_else_wrote_is_read_and_what_led_to_its_steps_is_handled_again() -> None:
    async def story() -> None:
        run, other = a_run(), a_run("run_2")
        books, turn = Books(run, other), House().turn()
        message, step = Woken("run_1"), run_commands.Lose("a", 1)
        turn.messages["run_1"].append(message)
        turn.commands["run_1"].append(step)
        begin(turn, run, "a")
        begin(turn, other, "a")
        books.says("stale")
        assert list(await books.writer.make_durable(turn, None)) == ["run_1"]
        assert books.loads == ["run_1"]
        assert books.posted == [message, Redo("run_1", step, tries=1)]
        assert message.tries == 1
        assert list(books.residents.here) == ["run_2"]

    told(story)


def test_a_run_that_moved_is_forgotten_and_its_messages_are_sent_after_it() -> None:
    async def story() -> None:
        run = a_run()
        books, turn = Books(run), House().turn()
        message = asked("pause")
        turn.messages["run_1"].append(message)
        books.desk.asked(turn, run, message)
        books.says("stale", owner="run-actor-1")
        await books.writer.make_durable(turn, None)
        assert message.answer.result().refused == "moved"
        assert not books.loads
        assert not books.residents.here
        assert not books.posted

    told(story)


def test_a_message_is_not_handled_for_ever() -> None:
    async def story() -> None:
        run = a_run()
        books, turn = Books(run), House().turn()
        message = asked("pause")
        message.tries = TRIES_MAX - 1
        turn.messages["run_1"].append(message)
        books.desk.asked(turn, run, message)
        books.says("stale")
        await books.writer.make_durable(turn, None)
        assert message.answer.result().refused == "unavailable"
        assert not books.posted

    told(story)


def test_an_admission_that_the_journal_refused_is_declined_and_other_messages_are_handled_again() -> None:
    async def story() -> None:
        run = a_queued_run()
        books, turn = Books(run), House().turn()
        admitted, woken = Admitted(Admission("run_1", number=3), 1), Woken("run_1")
        turn.messages["run_1"] += [admitted, woken]
        turn.step(run, run_commands.Start())
        books.says("refused", owner="")
        await books.writer.make_durable(turn, None)
        assert books.declined == [admitted.admission]
        assert books.posted == [woken]
        assert not books.loads, "the next message brings it back"

    told(story)


def test_an_admission_of_a_run_to_which_somebody_else_wrote_is_handled_again() -> None:
    async def story() -> None:
        run = a_queued_run()
        books, turn = Books(run), House().turn()
        admitted = Admitted(Admission("run_1", number=3), 1)
        turn.messages["run_1"].append(admitted)
        turn.step(run, run_commands.Start())
        books.says("stale", owner="")
        await books.writer.make_durable(turn, None)
        assert books.posted == [admitted]
        assert not books.declined

    told(story)


def test_a_command_whose_key_the_journal_knows_gets_the_answer_that_is_kept_there() -> None:
    async def story() -> None:
        run = a_run()
        books, turn = Books(run), House().turn()
        first, other = asked("pause", key="k"), asked("pause")
        for message in (first, other):
            turn.messages["run_1"].append(message)
            books.desk.asked(turn, run, message)
        kept = CommandReply(state=RunState.RUNNING, attempts=4)
        books.says("replayed", reply=actor_codec.encode_command_reply(kept))
        await books.writer.make_durable(turn, None)
        reply = first.answer.result()
        assert (reply.attempts, reply.replayed) == (4, True)
        assert books.posted == [other], "that answer is not its own"

    told(story)


def test_a_run_that_is_let_go_is_forgotten_once_that_is_durable() -> None:
    async def story() -> None:
        idle, touched = a_run("run_1"), a_run("run_2")
        books, turn = Books(idle, touched), House().turn()
        turn.passive = {"run_1": 5_000, "run_2": None, "run_3": None}
        begin(turn, touched, "a")
        await books.writer.make_durable(turn, None)
        [changed, going] = books.commits[0].appends
        assert (changed.run_id, changed.passive) == ("run_2", False)
        assert (going.run_id, going.passive, going.wake_at_ms, going.count) == ("run_1", True, 5_000, 0)
        assert list(books.residents.here) == ["run_2"]

    told(story)


def test_answers_go_out_for_what_is_durable_only() -> None:
    async def story() -> None:
        one, two = a_run("run_1"), a_run("run_2")
        books, turn = Books(one, two), House().turn()
        messages: list[Asked] = []
        for run in (one, two):
            messages.append(asked("pause", run.run.run_id))
            turn.messages[run.run.run_id].append(messages[-1])
            books.desk.asked(turn, run, messages[-1])
        books.says("stale", "run_2")
        failed = await books.writer.make_durable(turn, None)
        assert not messages[0].answer.done()
        turn.answer(failed)
        assert messages[0].answer.result().state == "paused"
        assert not messages[1].answer.done()

    told(story)

"""The log of a CI job as a stream: every line a frame, in the order in which they came, then `end`.

A frame's `seq` is the place of its line, so that a stream resumes after any frame. Lines come from the journal, and the
feed says when there are more; the state is looked at before the lines are, so that `end` comes after all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from orchestrator import outside_codec
from orchestrator.pipeline_job import WORDS, JobState
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL
from orchestrator.views import Frame
from serve_app.channel import KEEP_ALIVE_S
from serve_app.hub import Follower, Hub
from serve_app.run_stream import KEEP_ALIVE

#: lines per read
LINES = 500


async def log_frames(hub: Hub, journal: Journal, job_id: str, after: int) -> AsyncIterator[Sequence[Frame]]:
    """Lines after place `after`, then live, then `end`. Raises JournalUnavailable: a reader comes back with its id."""
    follower = await hub.follow(job_id)
    try:
        while True:
            follower.changed.clear()
            state = follower.state or await _state(journal, job_id)
            while lines := await journal.lines(job_id, after, LINES):
                yield [_frame(after + n, line) for n, line in enumerate(lines, 1)]
                after += len(lines)
            if state in TERMINAL:
                yield [Frame(None, "end", {"status": WORDS[JobState(state)]})]
                return
            if not await _changed(follower):
                yield KEEP_ALIVE
    finally:
        hub.leave(follower)


async def _state(journal: Journal, job_id: str) -> str:
    row = await journal.summary(job_id)
    # one that is gone was deleted with its pipeline, which cancels it first
    return JobState.CANCELLED if row is None else row.state


async def _changed(follower: Follower) -> bool:
    """Returns when there may be more, or False after a silence."""
    try:
        async with asyncio.timeout(KEEP_ALIVE_S):
            await follower.changed.wait()
    except TimeoutError:
        return False
    return True


def _frame(place: int, line: bytes) -> Frame:
    return Frame(place, "log", msgspec.to_builtins(outside_codec.decode_log_entry(line)))

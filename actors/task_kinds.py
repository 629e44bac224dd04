"""Which types of task this worker runs, and the four `core` ones (contracts, section "Task types")."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping

from actors.bash_task import run_bash
from actors.command_task import run_command, run_text
from actors.http_task import run_http
from actors.python_task import run_python
from actors.work import TaskFailed, Work
from orchestrator.errors import PermanentFailure
from orchestrator.kinds import SLEEP_MAX_S


class DeliberateFailure(TaskFailed):
    """What `core.fail` raises."""


def run_noop(work: Work) -> object:
    return {}


def run_echo(work: Work) -> object:
    return work.params


def run_sleep(work: Work) -> object:
    """Raises TaskCancelled as soon as the attempt is cancelled."""
    seconds = work.params.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise PermanentFailure("params.seconds must be a number")
    if not 0 <= seconds <= SLEEP_MAX_S:
        raise PermanentFailure(f"params.seconds must be from 0 to {SLEEP_MAX_S}")
    woken = threading.Event()
    work.attempt.on_cancel(woken.set)
    woken.wait(seconds)
    work.attempt.check()
    return {"slept": seconds}


def run_fail(work: Work) -> object:
    """Fails attempts 1 to `times`, or every one."""
    times = work.params.get("times")
    if times is not None and not isinstance(times, int):
        raise PermanentFailure("params.times must be a whole number")
    if times is not None and work.assignment.attempt > times:
        return {}
    message = str(work.params.get("message") or "told to fail")
    raise PermanentFailure(message) if work.params.get("permanent") is True else DeliberateFailure(message)


KINDS: Mapping[str, Callable[[Work], object]] = {
    "core.noop": run_noop,
    "core.echo": run_echo,
    "core.sleep": run_sleep,
    "core.fail": run_fail,
    "core.text": run_text,
    "core.command": run_command,
    "python": run_python,
    "bash": run_bash,
    "http": run_http,
}

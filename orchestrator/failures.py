"""What a failure is called, so that a retry policy can name it.

    raise requests.Timeout  ──▶ ("requests.exceptions.Timeout", "requests.exceptions.RequestException", "OSError", …)
    exit code 3 of a command ──▶ (…, "exit 3")            503 as an answer ──▶ (…, "status 503", "status 5xx")

A class is called `module.Class`, one of the builtins just `Class`, as Python's tracebacks have it. A worker sends the
names of the raised class and of all its bases, most specific first, so a policy that names a base fits what derives
from it, as `except` does. `exit …` and `status …` are no names of classes: a policy says them by keys of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

#: names of one failure, and characters of a name
NAMES_MAX = 32
NAME_MAX = 200
#: what an attempt raised that ran out of time, or was silent too long
TIMEOUT_NAMES = ("TimeoutError", "OSError", "Exception", "BaseException")


def name_of(kind: type[BaseException], module: str = "") -> str:
    """What policies call the class; `module` is where workers find it, if that is elsewhere."""
    module = module or kind.__module__
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    return name[:NAME_MAX]


def names_of(error: BaseException, marks: Sequence[str] = ()) -> tuple[str, ...]:
    """What a worker reports of it; `marks` come first."""
    bases = (name_of(kind) for kind in type(error).__mro__ if kind is not object)
    return (*marks, *bases)[:NAMES_MAX]


def exit_mark(code: int) -> str:
    """Of a command that ended with that exit code."""
    return f"exit {code}"


def status_marks(status: int) -> tuple[str, str]:
    """Of an answer with that status: itself, and its class."""
    return f"status {status}", f"status {status // 100}xx"

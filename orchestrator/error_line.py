"""What user code raised, as people read it: class and message on one line, however it was written."""

from __future__ import annotations

from orchestrator.errors import PermanentFailure

#: characters
ERROR_MAX = 1000


def one_line(error: BaseException, *plain: type[BaseException]) -> str:
    """Class and message; of PermanentFailure and the kinds in `plain` the message alone. Raises nothing."""
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = "(its message cannot be read)"
    name = type(error).__name__
    if message and not isinstance(error, (PermanentFailure, *plain)):
        message = f"{name}: {message}"
    text = message or name
    return text if len(text) <= ERROR_MAX else text[: ERROR_MAX - 1] + "…"

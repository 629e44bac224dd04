"""Log lines as JSON, for collectors: `ORCHESTRATOR_LOG_FORMAT=json`.

    {"ts":"2026-01-02T03:04:05.678000Z","level":"INFO","logger":"task","message":"17 rows","pid":4711,
     "run_id":"run_…","task":"load","attempt":2,"trace_id":"0af7…"}

A line that is written while an attempt runs has its ids, whoever writes it; others have those that the writer gave
with `extra=about(…)`. An exception is told under `exception`. Keys without a value are left out.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from actors.attempt_log import running
from orchestrator.traces import trace_of

_IDS = ("run_id", "task", "attempt", "trace_id")


def about(run_id: str, task: str | None = None, attempt: int | None = None, traceparent: str = "") -> dict[str, Any]:
    """What a log line is about, for `extra`; `traceparent` is the one the run was created with."""
    return {"run_id": run_id, "task": task, "attempt": attempt, "trace_id": trace_of(run_id, traceparent).trace_id}


class JsonFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter`."""
        import orjson

        told: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        log = running()
        ids = about(*log.key, log.traceparent) if log is not None else {}
        told |= {name: record.__dict__.get(name, ids.get(name)) for name in _IDS}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        some = {name: _told(value) for name, value in told.items() if value is not None}
        return orjson.dumps(some, option=orjson.OPT_UTC_Z, default=str).decode()


def _told(value: Any) -> Any:
    """Text as UTF-8 can have it: names of files, say, may have bytes that are none."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

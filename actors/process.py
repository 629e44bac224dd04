"""What every process of ours does first, and how it ends when something unforeseen happens."""

from __future__ import annotations

import gc
import logging
import os
from typing import NoReturn

#: of the environment, never handed to a command, whose output is kept in a log, nor to code that was sent to us
SECRETS = frozenset(
    {
        "ORCHESTRATOR_ADMIN_TOKEN",
        "ORCHESTRATOR_API_KEY",
        "ORCHESTRATOR_TOKEN",
        "CLIENT_TOKEN",
        "GLOBAL_WORKER_TOKEN",
        "WEBHOOK_SECRET",
        "ORCHESTRATOR_SECRET_KEY",
        "REDIS_URL",
        # what KubeRay gives to Ray's processes
        "REDIS_PASSWORD",
        "RAY_AUTH_TOKEN",
        "OTEL_EXPORTER_OTLP_HEADERS",
    }
)
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def end() -> NoReturn:
    """End this process at once; Ray starts it again, and it recovers from the journal."""
    logging.shutdown()
    os._exit(1)


def settle() -> None:
    """Log to Ray's files, and let collections pass over what was imported: it stays, and there is a lot of it."""
    log()
    gc.freeze()


def log() -> None:
    """To standard error, which Ray keeps in files: as text, or as JSON where that is asked for."""
    handler, level = logging.StreamHandler(), os.environ.get("ORCHESTRATOR_LOG_LEVEL", "WARNING")
    handler.setFormatter(_formatter())
    handler.setLevel(level)  # what tasks log is kept from INFO on, for which the root logger lets more through
    logging.basicConfig(level=level, handlers=[handler])


def logs_json() -> bool:
    """Are log lines to be JSON?"""
    return os.environ.get("ORCHESTRATOR_LOG_FORMAT", "") == "json"


def _formatter() -> logging.Formatter:
    if not logs_json():
        return logging.Formatter(_TEXT)
    from actors.json_logs import JsonFormatter

    return JsonFormatter()

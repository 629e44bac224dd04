"""What every process of ours does first, and how it ends when something unforeseen happens."""

from __future__ import annotations

import gc
import logging
import os

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def end() -> None:
    """End this process at once; Ray starts it again, and it recovers from the journal."""
    logging.shutdown()
    os._exit(1)


def settle() -> None:
    """Log to Ray's files, and let collections pass over what was imported: it stays, and there is a lot of it."""
    logging.basicConfig(level=os.environ.get("ORCHESTRATOR_LOG_LEVEL", "WARNING"), format=_LOG_FORMAT)
    gc.freeze()

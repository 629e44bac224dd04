"""The server that `up --detach` leaves behind: a process without the command line, which it would hold all its life.

    up --detach ── plan (JSON, standard input) ──▶ python -m serve_app.detached ── progress, errors ──▶ logs/up.log

The plan does not go by arguments, which everybody on the machine can read: a URL in it may hold a password.
"""

from __future__ import annotations

import sys

from orchestrator.errors import OrchestratorError
from serve_app import up


def main() -> int:
    """Serve as standard input says; the exit status, as of `orchestrator up`."""
    try:
        up.serve(up.Plan.from_json(sys.stdin.buffer.read()), _say, lambda _: None)
    except OrchestratorError as error:
        _say(f"error: {error}")
        return up.REFUSED if isinstance(error, up.WeakTokens) else 1
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

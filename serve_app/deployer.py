"""Puts the HTTP application on Ray Serve from a process of its own, which ends when that is done.

    up ── starts at once ──▶ python -m serve_app.deployer: imports Ray Serve and the application
       ── settings, address (standard input) ──▶ connects, deploys, ends with status 0

Importing Serve costs 80 MB and a second of CPU. The server's main process lives as long as the server and
needs none of it; the second is spent while Ray's own processes start.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from actors.settings import Settings
from orchestrator.errors import Unavailable

#: seconds from the settings to an application that answers
DEPLOY_S = 90.0


class Deployer:
    """The process, waiting for its order."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def deploy(self, settings: Settings, ray_address: str) -> None:
        """HTTP answers once this returns. Raises Unavailable."""
        order = json.dumps({"settings": settings.to_dict(), "address": ray_address})
        try:
            _, told = self._process.communicate(order, timeout=DEPLOY_S)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"HTTP did not start within {DEPLOY_S:.0f} s") from None
        if self._process.returncode != 0:
            last = next((line for line in reversed(told.splitlines()) if line.strip()), "no reason given")
            raise Unavailable(f"HTTP did not start: {last}")


@contextmanager
def prepared() -> Iterator[Deployer]:
    """The process is starting; it is gone when the block ends."""
    command = [sys.executable, "-P", "-m", __name__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Deployer(process)
        finally:
            if process.poll() is None:
                process.kill()


def main() -> None:
    """Carry out the order on standard input."""
    import logging

    import ray
    import ray.serve

    from serve_app import app

    order: dict[str, Any] = json.load(sys.stdin)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    ray.init(order["address"], namespace="orchestrator", log_to_driver=False, logging_level=logging.ERROR)
    app.deploy(Settings.from_dict(order["settings"]))


if __name__ == "__main__":
    main()

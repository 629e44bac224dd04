"""Puts the actors and the HTTP application on Ray from a process of its own, which ends when all of it is ready.

    up ── starts at once ──▶ python -m serve_app.deployer: imports Ray Serve, the shells and the application
       ── settings, address (standard input) ──▶ connects; actors and HTTP side by side; waits for /ready; status 0

Those imports cost 100 MB and a second of CPU. The server's main process lives as long as the server and
needs none of it; the second is spent while Ray's own processes start.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from actors.settings import Settings
from orchestrator.errors import Unavailable

#: seconds from the settings to a server that is ready, and those that `/ready` may take of them
DEPLOY_S = 120.0
READY_S = 45.0


class Deployer:
    """The process, waiting for its order."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def deploy(self, settings: Settings, ray_address: str, environment: dict[str, str]) -> None:
        """Actors run and `GET /ready` answers 200 once this returns. Raises Unavailable.

        They and what they start find `environment` in theirs, beside that of the node.
        """
        order = json.dumps({"settings": settings.to_dict(), "address": ray_address, "environment": environment})
        try:
            _, told = self._process.communicate(order, timeout=DEPLOY_S)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"actors and HTTP did not start within {DEPLOY_S:.0f} s") from None
        if self._process.returncode != 0:
            last = next((line for line in reversed(told.splitlines()) if line.strip()), "no reason given")
            raise Unavailable(f"actors and HTTP did not start: {last}")


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

    from actors import spawn
    from serve_app import app

    order: dict[str, Any] = json.load(sys.stdin)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    told: dict[str, Any] = {"runtime_env": {"env_vars": order["environment"]}} if order["environment"] else {}
    ray.init(order["address"], namespace="orchestrator", log_to_driver=False, logging_level=logging.ERROR, **told)
    settings = Settings.from_dict(order["settings"])
    with ThreadPoolExecutor(1) as pool:
        cast = pool.submit(spawn.start, settings)
        app.deploy(settings)
        cast.result()
    _wait_until_ready(settings.url)


def _wait_until_ready(url: str) -> None:
    from serve_app.api_client import Api, ServerUnreachable

    deadline = time.monotonic() + READY_S
    reason = "no answer"
    with Api(url, None) as api:
        while time.monotonic() < deadline:
            try:
                status, body = api.root("/ready")
            except ServerUnreachable as error:
                reason = error.why
            else:
                if status == 200:
                    return
                reason = str(body.get("reason", status))
            time.sleep(0.05)
    raise Unavailable(f"the server does not become ready: {reason}")


if __name__ == "__main__":
    main()

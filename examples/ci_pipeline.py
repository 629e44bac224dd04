"""A CI pipeline that tests, builds and tries a small Python package from its source tree; its log, live.

    orchestrator up --detach
    python examples/ci_pipeline.py

The pipeline is `ci_pipeline/ci.lua`. Its stages run in a sandbox, the commands they start run wherever the runner
wants; the one started here runs them as plain processes of this machine (`local`): for scripts that you trust.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from orchestrator.client import Client

HERE = Path(__file__).parent / "ci_pipeline"


def server() -> Client:
    """The server on this machine, with the operator's token."""
    home = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator"))
    credentials = json.loads((home / "credentials.json").read_text())
    return Client(credentials["url"], credentials["tokens"]["admin"])


def run(client: Client) -> bool:
    """Does the package pass? Its log goes to standard output."""
    pipeline = client.pipelines.create((HERE / "ci.lua").read_text())
    source = {"source": str((HERE / "package").absolute()), "python": sys.executable}
    job = client.pipelines.launch(pipeline["id"], source)
    for event in client.pipelines.follow(job["id"]):
        if event.kind == "log":
            print(f"{event.data['level']:7} {event.data['message']}")
    ended = client.pipelines.job(job["id"])
    print(ended["status"], ended["result"])
    return ended["status"] == "Succeeded"


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    runner = subprocess.Popen([orchestrator, "runner", "--process-backend", "local"])
    try:
        with server() as client:
            passed = run(client)
    finally:
        runner.terminate()
        runner.wait()
    sys.exit(0 if passed else 1)

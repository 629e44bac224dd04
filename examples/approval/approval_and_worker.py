"""A job that waits for a human and then for a worker anywhere: the blueprint, its worker, and who wants the job done.

orchestrator up --detach --blueprints examples/approval
python examples/approval/approval_and_worker.py
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.blueprints import StateMachineBlueprint
from orchestrator.client import Client
from orchestrator.remote_tasks import remote_task

publishing = StateMachineBlueprint(name="publishing", api_endpoint="/jobs/publishing", api_version="v1")


@publishing.handler_for("start", is_start=True)
def ask(actions):
    actions.await_human_approval("console", "Publish it?", {"approved": "typeset", "rejected": "failed"})


@publishing.handler_for("typeset")
def hand_out(initial_data, actions):
    actions.dispatch_task("typeset", params=initial_data, transitions={"success": "finished"})


@remote_task
def typeset(params, ctx):
    ctx.progress(0.5, "half of it")
    return {"pages": [line.title() for line in params["text"].splitlines()]}


if __name__ == "__main__":
    home = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator"))
    credentials = json.loads((home / "credentials.json").read_text())
    command = [Path(sys.executable).with_name("orchestrator"), "worker", Path(__file__).stem]
    worker = subprocess.Popen(command, cwd=Path(__file__).parent)
    with Client(credentials["url"], credentials["tokens"]["admin"]) as client:
        job_id = client.jobs.create("/jobs/publishing", {"text": "call me ishmael.\nsome years ago"})
        while client.jobs.get(job_id)["status"] != "waiting_for_human":
            time.sleep(0.1)
        client.jobs.approve(job_id, "approved")
        job = client.jobs.wait(job_id)
        print(job["status"], job["state_history"]["pages"])
    worker.terminate()
    worker.wait()

"""A remote worker as simple as one can be: polls, works for a moment, reports until it is heard.

    python pull_worker.py URL TOKEN WORKER_ID SEED

Run by `test_jobs.py` as a process of its own, to be killed and stopped.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

import httpx


def main() -> None:
    """Works until it is killed."""
    url, token, worker_id, seed = sys.argv[1:]
    chance = random.Random(seed)
    with httpx.Client(base_url=url, headers={"X-Worker-Token": token}, timeout=40) as http:
        body = {"worker_id": worker_id, "supported_tasks": ["work"], "max_concurrent_tasks": 1}
        _insist(http, "POST", "/_worker/workers/register", body)
        while True:
            answer = _insist(http, "GET", f"/_worker/workers/{worker_id}/tasks/next?timeout=5", None)
            if answer.status_code == 204:
                continue
            task = answer.json()
            time.sleep(chance.uniform(0, 0.03))
            result = {"job_id": task["job_id"], "task_id": task["task_id"], "worker_id": worker_id}
            data = {"n": task["params"]["n"], "by": worker_id}
            _insist(http, "POST", "/_worker/tasks/result", {**result, "status": "success", "data": data})


def _insist(http: httpx.Client, method: str, path: str, body: Any) -> httpx.Response:
    """The answer of a server that may be away for a while."""
    while True:
        try:
            answer = http.request(method, path, json=body)
            if answer.status_code in (200, 204):
                return answer
        except httpx.TransportError:
            pass
        time.sleep(0.1)


if __name__ == "__main__":
    main()

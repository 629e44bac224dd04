"""A worker of SDK 1.0b20, started with that SDK's own Python: skills instead of tasks, a socket of its own, events."""

import asyncio

from avtomatika_worker import Worker

worker = Worker(worker_type="sdk")


@worker.skill("sdk_1_0b20")
async def work(params, task_id, job_id, send_progress, **_):
    if params["do"] == "succeed":
        return {"status": "success", "data": {"echo": params["n"]}}
    if params["do"] == "fail":
        return {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "nope"}}
    await send_progress(task_id, job_id, 0.5, "half")
    await asyncio.sleep(120)


worker.run()

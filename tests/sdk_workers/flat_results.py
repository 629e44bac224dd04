"""A worker of SDK 1.0b6, started with that SDK's own Python: results flat, one anonymous socket for commands."""

import asyncio

from avtomatika_worker import Worker

worker = Worker(worker_type="sdk")


@worker.task("sdk_1_0b6")
async def work(params, task_id, job_id, send_progress, **_):
    if params["do"] == "succeed":
        return {"status": "success", "data": {"echo": params["n"]}}
    if params["do"] == "fail":
        return {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "nope"}}
    await send_progress(task_id, job_id, 0.5, "half")
    await asyncio.sleep(120)


worker.run()

"""Surface `jobs`: jobs of blueprints for clients, tasks for remote pull workers.

Seed: "Orchestrator API Reference", `/_public`, `/api` and `/_worker`; the worker SDKs `avtomatika-worker` 1.0b3, 1.0b6
and 1.0b20 are its real clients. Everything beyond both is additive (contracts/jobs.md).

    endpoints   method, path, handler                            routes            who may call what, in which order
    callers     who is asking                                    parse             bodies, headers and queries in
    words       views and errors out, in this surface's words    long_poll         the answer to a waiting worker
    client_handlers, worker_handlers, public_handlers            sockets           the workers' WebSocket
    models, docs   what is taken and given, as OpenAPI           page              the same for people, with blueprints

On purpose, beyond the seed and its contract:

- everything below `/api` that is no other surface's path is answered in this surface's form, after its token check;
- a repeated creation with an `Idempotency-Key` carries `Idempotent-Replay: true`; a blank key is none;
- JSON nested deeper than 100 levels is no JSON here; integers beyond 64 bits become floating point numbers;
- `null` as `initial_data` is an empty object; a `timeout` that is no number is ignored;
- an unknown `status` in the list of jobs is 400 `Invalid status`; a list has at most 1,000 jobs;
- a worker with a token of its own that submits a result or an event for another id is refused with 403 unless that id
  has a token of its own (then 401).
"""

from serve_app.surfaces.jobs.routes import JobsSurface

__all__ = ["JobsSurface"]

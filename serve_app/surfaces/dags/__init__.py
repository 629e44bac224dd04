"""Surface `dags`: DAG definitions, manual runs, backfills and their event streams.

Seed: "Orchestrator – API", `/api/v1/`; its three endpoints (POST /dags, POST /runs, GET /runs/{id}) keep
their shapes, the rest is additive. Base path `/api/v1/runtime/orchestrator`.

    routes   who may call what, in which order it is checked        parse   bodies and queries in
    words    views and events out, in this surface's words          docs    the same, as OpenAPI

On purpose, beyond the seed and its contract:

- `X-RateLimit-Limit` is the size of the bucket, so that `X-RateLimit-Remaining` never exceeds it;
- optional fields of POST /runs may be null, which counts as absent;
- a dry run stores nothing, not even under an `X-Request-Id`;
- a paused run answers `state:"running"` with the additive `paused:true`;
- additive endpoints: bundles of code, deploy of a DAG, pause, resume and retry of a run, logs of a task, workers.
"""

from serve_app.surfaces.dags.routes import BASE, DagsSurface

__all__ = ["BASE", "DagsSurface"]

"""Surface `runs`: runs that are followed by checkpoints and server-sent events.

Seed: "Orchestrator API reference"; its endpoints, event names and header semantics are kept, the rest of
contracts/runs.md is additive. Base path `/runs`.

    routes   who may call what, in which order it is checked        parse        bodies, headers and queries in
    words    views, events and errors out, in this surface's words  inline_plan  a posted graph as tasks
    docs     the same, as OpenAPI                                   published    the three JSON Schemas

On purpose, beyond the seed and its contract:

- `edges` of a plan may be left out; `type: "python"` may stand beside an `entrypoint`;
- `dag_id`, `plan` and `flow` may not be null: whoever sends one meant to name a definition;
- a replayed answer carries `Idempotent-Replay: true`, as on the dags surface; a blank `Idempotency-Key` is none;
- JSON nested deeper than 100 levels, numbers beyond a double's range and lone surrogates are refused with 400;
- the schemas are served at `/schemas/{run,checkpoint,event}.schema.json`;
- a reader that leaves 256 frames unread for 5 s is cut off; until then frames wait for it, so that a long replay
  is no overflow;
- of several API replicas each grants its share of the streams per principal; the rate limit is one for all of them, and
  a request that the journal does not answer in time is not held up by it.
"""

from serve_app.surfaces.runs.routes import BASE, ENDPOINTS, RunsSurface

__all__ = ["BASE", "ENDPOINTS", "RunsSurface"]

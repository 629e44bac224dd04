"""Surface `pipelines`: CI pipelines in Lua, their jobs, the runners that execute them, and their logs.

Seed: "Rivet Orchestrator HTTP API", everything under `/api`. Runners and command lines of two generations call it: the
first claims by `/claim`, wraps log entries and names its capabilities; the second claims by `/execute`, sends bare
arrays and names none.

    routes    who may call what, in which order it is checked     callers   who is asking
    handlers  parse, call the port, translate                     words     views, frames and refusals out
    parse     bodies, queries and ids in                          models    what is taken and given
    docs      the same, as OpenAPI                                editor    stubs of the Lua modules, for editors

On purpose, where the seed and its contract are silent:

- a page whose `Origin` is not allowed can send no command as an anonymous caller (401), see `callers`;
- reading runners needs scope client and every DELETE scope admin, which is the stricter reading of section 4 together
  with "Details decided";
- in a path or body a UUID may be in upper case; answers have it in lower case;
- JSON is read whatever its Content-Type; numbers beyond 64 bits and NUL characters are refused, except in log messages;
- what is secret in a pipeline (`config.secret_env_vars`) is shown masked; who claims a job gets it in `env_vars`;
- `timeout_seconds` is at least 1, `max_retries` at most 1000;
- an `Idempotency-Key` counts for `/claim` and `/execute/` of a job together: they are one command;
- a log stream lives as long as those of other surfaces (about ten minutes) and is resumed.
"""

from serve_app.surfaces.pipelines.routes import PREFIXES, PipelinesSurface

__all__ = ["PREFIXES", "PipelinesSurface"]

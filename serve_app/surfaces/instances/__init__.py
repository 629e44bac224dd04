"""Surface `instances`: orchestrator instances, the plans they work through, findings and live events.

Seed: "Orchestrator API Server", `/api/orchestrators` and `/api/plans`; what it describes keeps its shape, starting
an instance (POST /api/orchestrators), event numbers and resuming are additive.

    routes    who may call what, in which order it is checked     callers   who is asking
    parse     bodies, queries and names in                        words     views, events and refusals out
    streams   events as texts and bytes                           sockets   the two WebSockets
    models    what is taken and given                             docs      the same, as OpenAPI

On purpose, beyond the seed and its contract:

- 503 about a dead instance carries no `Retry-After`: asking again would not help;
- a WebSocket handshake that fails because the journal is away succeeds and is closed with 1013, because clients
  take a refused handshake for an unknown id;
- a page whose `Origin` is not allowed can send no command as an anonymous caller (401), see `callers`;
- a page of the very host that it asks may open sockets, whatever `CORS_ORIGINS` says;
- `CORS_ORIGINS=*` goes without credentials;
- numbers in POST /api/orchestrators must be JSON numbers, and `reason` has at most 10,000 characters.
"""

from serve_app.surfaces.instances.routes import ORCHESTRATORS, PLANS, InstancesSurface

__all__ = ["ORCHESTRATORS", "PLANS", "InstancesSurface"]

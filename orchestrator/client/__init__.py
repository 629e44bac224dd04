"""A client for programs in Python, blocking and asynchronous, of the same server the command line talks to.

    from orchestrator.client import Client

    with Client("http://127.0.0.1:8000", token) as client:
        client.dags.define({"dag_id": "etl", "owner": "you", "tasks": [{"id": "a"}, {"id": "b", "depends_on": ["a"]}]})
        run = client.dags.trigger("etl")
        for event in client.dags.events(run["run_id"]):     # each once, over cut connections and restarts
            print(event.kind, event.data)

    async with AsyncClient(url, token) as client:           # the same methods, awaited; streams by `async for`
        await client.runs.create(dag_id="etl")

    errors, sse       what goes wrong; bytes to frames       dags, runs, …   each surface, as scripts
    script, follow    requests and streams, without I/O      drivers         perform scripts, with httpx

It is for outside of the server: nothing else in this package imports it, and `import orchestrator` does not load it.
"""

from __future__ import annotations

from orchestrator.client.bound import AsyncClient, Client
from orchestrator.client.errors import (
    ApiRefused,
    Conflicting,
    NotAllowed,
    NotRunning,
    NotThere,
    ServerBroken,
    ServerUnreachable,
)
from orchestrator.client.follow import Event

__all__ = [
    "Client",
    "AsyncClient",
    "Event",
    "ApiRefused",
    "NotAllowed",
    "NotThere",
    "Conflicting",
    "ServerUnreachable",
    "NotRunning",
    "ServerBroken",
]

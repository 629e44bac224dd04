"""An ASGI application on a port, in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """The application behind a real server on a free port of this machine: host and port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        serving = asyncio.create_task(server.serve([listener]))
        # connections wait in the listener's backlog until it serves
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving

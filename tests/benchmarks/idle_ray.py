"""Ray, Serve with an empty application and seven empty actors, and nothing of ours: what they cost by themselves.

Prints `ready` and stays until its standard input closes.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def main() -> None:
    """Starts the cluster, says so, waits."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_SERVE_ENABLE_HA_PROXY="1")
    import ray
    from ray import serve
    from starlette.requests import Request

    ray.init(
        "local", include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False, object_store_memory=200 << 20
    )

    class Empty:
        async def ping(self) -> None:
            return None

    class Application:
        async def __call__(self, request: Request) -> str:
            return "ok"

    remote: Any = ray.remote(Empty).options(num_cpus=0)
    actors = [remote.remote() for _ in range(7)]
    ray.get([actor.ping.remote() for actor in actors])
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    deployment: Any = serve.deployment(Application)
    serve.run(deployment.bind(), name="empty", route_prefix="/")
    print("ready", flush=True)
    sys.stdin.read()
    serve.shutdown()  # type: ignore[no-untyped-call]  # Serve has no types here
    ray.shutdown()


if __name__ == "__main__":
    main()

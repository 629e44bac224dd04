"""What the endpoints about pools of workers do; see `handlers.py` for what holds of all."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator import pools
from orchestrator.cluster_views import PoolView
from orchestrator.pools import PoolSpec
from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.ports import Pools
from serve_app.requests import Fields, json_body, unhindered
from serve_app.surfaces.dags.answers import answer, check_operator, path_id

#: fields of a pool as people see it; its generation is ours
_SHOWN = tuple(name for name in PoolSpec.__struct_fields__ if name != "generation")
#: field -> most it may be
_AMOUNTS = {
    "num_cpus": pools.AMOUNT_MAX,
    "num_gpus": pools.AMOUNT_MAX,
    "idle_timeout_s": pools.SPAN_MAX_S,
    "scale_up_wait_s": pools.SPAN_MAX_S,
}
#: field -> least and most
_COUNTS = {
    "memory_bytes": (0, pools.BYTES_MAX),
    "min": (0, pools.WORKERS_MAX),
    "tasks_per_worker": (1, pools.TASKS_MAX),
    "step": (1, pools.WORKERS_MAX),
}


class PoolHandlers:
    """The endpoints over one port."""

    def __init__(self, book: Pools, options: ServerOptions) -> None:
        self._book = book
        self._most_bytes = options.max_body_bytes

    async def list_pools(self, _: Request, __: Principal) -> Response:
        """List pools of workers, and how many they have"""
        return answer({"items": [pool_json(each) for each in await self._book.pools()]})

    async def get_pool(self, request: Request, _: Principal) -> Response:
        """Read one pool of workers"""
        return answer(pool_json(await self._book.pool(path_id(request, "pool", "name"))))

    async def set_pool(self, request: Request, principal: Principal) -> Response:
        """Define a pool of workers, or change it"""
        check_operator(principal, "pools")
        name = path_id(request, "pool", "name")
        spec = parse_pool(await json_body(request, self._most_bytes))
        return answer(pool_json(await unhindered(self._book.set_pool(name, spec))))

    async def delete_pool(self, request: Request, principal: Principal) -> Response:
        """Forget a pool: its workers finish what they do and end"""
        check_operator(principal, "pools")
        name = path_id(request, "pool", "name")
        await unhindered(self._book.delete_pool(name))
        return answer({"name": name, "deleted": True})


def pool_json(view: PoolView) -> dict[str, Any]:
    """A pool, and what is so now."""
    now = msgspec.structs.asdict(view)
    del now["spec"]
    return {name: getattr(view.spec, name) for name in _SHOWN} | now


def parse_pool(body: object) -> PoolSpec:
    """Body of PUT /pools/{name}. Raises Invalid."""
    fields = Fields(body)
    given: dict[str, Any] = {"max": fields.whole("max", 0, pools.WORKERS_MAX, required=True)}
    given |= {name: fields.whole(name, *bounds) for name, bounds in _COUNTS.items()}
    given |= {name: _amount(fields, name, fields.anything(name), most) for name, most in _AMOUNTS.items()}
    given["resources"] = {
        name: _amount(fields, f"resources/{name}", amount, pools.AMOUNT_MAX)
        for name, amount in fields.mapping("resources").items()
    }
    given["labels"] = fields.mapping("labels")
    for name, value in given["labels"].items():
        if not isinstance(value, str):
            fields.wrong(f"labels/{name}", "text expected")
    fields.check()
    spec = PoolSpec(**{name: value for name, value in given.items() if value is not None})
    pools.check(spec)
    return spec


def _amount(fields: Fields, name: str, value: object, most: float) -> float | None:
    if value is None and "/" not in name:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        fields.wrong(name, "number expected")
        return None
    if not 0 <= value <= most:
        fields.wrong(name, f"number from 0 to {most:g} expected")
    return float(value)

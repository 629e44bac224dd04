"""The commands on what runs are done with: worker slots, and tenants' shares of them."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_app import screen
from serve_app.api_client import Json
from serve_app.session import Session, command, group

#: characters of a node's id that tell it from others
_NODE_ID_SHOWN = 12

workers = group("Worker slots of the cluster.")
shares = group("Weights of tenants in the shares of worker slots.")


@command(shares, "list")
def shares_list(session: Session) -> None:
    """List the weights of tenants; those that are not listed weigh 1."""
    with session.api() as api:
        answer = api.get("/shares")
    if session.as_json:
        screen.print_json(answer)
        return
    screen.print_table(("tenant", "weight"), ([each["tenant"], each["weight"]] for each in answer["items"]))


@command(shares, "set")
def shares_set(
    session: Session,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    weight: Annotated[int, typer.Argument(metavar="WEIGHT", min=1)],
) -> None:
    """Give a tenant a weight in the shares of worker slots."""
    with session.api() as api:
        answer = api.post("/shares", {"tenant": tenant, "weight": weight})
    session.tell(answer, f"{answer['tenant']} weighs {answer['weight']}")


@command(workers, "list")
def workers_list(session: Session) -> None:
    """List the worker slots."""
    with session.api() as api:
        answer = api.get("/workers")
    _show_workers(session, answer)


@command(workers, "scale")
def workers_scale(
    session: Session,
    n: Annotated[int, typer.Argument(metavar="N", min=0)],
    pool: Annotated[str, typer.Option(help="Pool of slots.")] = "default",
) -> None:
    """Have N worker slots in a pool."""
    with session.api() as api:
        answer = api.post("/workers/scale", {"pool": pool, "n": n})
    _show_workers(session, answer)


@command(workers, "drain")
def workers_drain(session: Session, worker_id: Annotated[str, typer.Argument(metavar="WORKER_ID")]) -> None:
    """Give a worker slot nothing more to do."""
    session.send(f"/workers/{worker_id}/drain", lambda a: f"{a['worker_id']} {screen.shown(a['state'])}")


def _show_workers(session: Session, answer: Json) -> None:
    if session.as_json:
        screen.print_json(answer)
        return
    columns = ("worker_id", "pool", "state", "node", "node_id", "pid")
    items = ({**each, "node_id": str(each.get("node_id", ""))[:_NODE_ID_SHOWN]} for each in answer["items"])
    screen.print_table(columns, ([each.get(column) for column in columns] for each in items))

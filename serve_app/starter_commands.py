"""The commands on what starts runs of several DAGs: events and assets."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.client import dags
from serve_app import screen
from serve_app.arguments import Params, params
from serve_app.session import Session, command, group
from serve_app.start_commands import starting

assets = group("Assets that tasks update and DAGs consume.")


@command(starting, "tell")
def tell_command(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="EVENT", help="DAGs with this on_event run.")],
    event_id: Annotated[str, typer.Argument(metavar="ID", help="Told again, it starts nothing.")],
    param: Params = None,
) -> None:
    """Tell of an event: every DAG that listens to it runs, once however often it is told."""
    with session.api() as api:
        told = api.run(dags.tell(name, event_id, params(param)))
    if session.as_json:
        screen.print_json(dict(told))
        return
    screen.print_table(("dag", "run", "state"), ((r["dag_id"], r["run_id"], r["state"]) for r in told["runs"]))
    if told["duplicate"]:
        screen.say("it had been told before: nothing started now")
    elif not told["runs"]:
        screen.say(f"no DAG has on_event {name}")


@command(assets, "list")
def assets_list(session: Session) -> None:
    """List assets: who updates and who consumes them."""
    with session.api() as api:
        found = api.run(dags.list_assets())
    session.show_rows(
        found,
        ("asset", "updates", "updated at", "produced by", "consumed by"),
        lambda a: (a["asset"], a["updates"], a["updated_at"], ", ".join(a["producers"]), ", ".join(a["consumers"])),
    )


@command(assets, "show")
def assets_show(session: Session, name: Annotated[str, typer.Argument(metavar="ASSET")]) -> None:
    """Show one asset with its latest updates."""
    with session.api() as api:
        found = api.run(dags.get_asset(name))
    if session.as_json:
        screen.print_json(dict(found))
        return
    facts = {"asset": found["asset"], "updates": found["updates"]}
    screen.print_facts(
        {**facts, "produced by": ", ".join(found["producers"]), "consumed by": ", ".join(found["consumers"])}
    )
    screen.print_line("")
    rows = ((u["at"], u["dag_id"], u["run_id"], u["task"], u["attempt"]) for u in found["last_updates"])
    screen.print_table(("at", "dag", "run", "task", "attempt"), rows)

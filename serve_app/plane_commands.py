"""The commands on control planes that share a journal: who is in charge, and taking over."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.client import dags
from orchestrator.errors import Unavailable
from serve_app.session import Session, command, group

planes = group("Control planes that share a journal.")

#: seconds between two looks, and those that the lease of a plane that died may take to run out, and a start
_LOOK_S = 0.5
_PATIENCE_S = 40.0
_FACTS = ("plane", "in_charge", "holder", "holder_url", "since", "term", "wanted", "lease_age_s")


@command(planes, "plane")
def plane_command(session: Session) -> None:
    """Tell which control plane is in charge of the journal, and whether it is the one asked."""
    with session.api() as api:
        session.show(api.run(dags.plane()), _FACTS)


@command(planes, "takeover")
def takeover_command(
    session: Session,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once.")] = False,
) -> None:
    """Let the server asked be in charge: the one that is hands over, and stands by."""
    deadline = time.monotonic() + _PATIENCE_S
    with session.api() as api:
        view = api.run(dags.take_over())
        while not view["in_charge"] and not no_wait:
            if time.monotonic() > deadline:
                holder = view["holder"] or "nobody"
                raise Unavailable(f"after {_PATIENCE_S:.0f} s {holder} is in charge, not the server asked")
            time.sleep(_LOOK_S)
            view = api.run(dags.plane())
    session.show(view, _FACTS)

"""`orchestrator token`: access tokens of tenants, besides the three that a server makes at its first start."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from actors.settings import read_settings
from orchestrator.errors import Invalid
from serve_app import screen
from serve_app.session import Session, command, group

tokens = group("Access tokens.")

#: keys of the journal and of limits, and counters, have these between their parts
_TENANT = re.compile(r"[^\s:|/]+")


@command(tokens, "create")
def token_create(
    session: Session,
    tenant: Annotated[str, typer.Option(help="Tenant that the token acts for.")],
    scope: Annotated[list[str], typer.Option(help="client, worker or admin; may be given several times.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make a token; it is printed once, and only its digest is kept. Counts at once."""
    from actors.clock import Clock
    from serve_app import auth, token_file

    if not _TENANT.fullmatch(tenant):
        raise Invalid(f"--tenant {tenant!r}: a name without spaces and without : | / expected")
    if unknown := set(scope) - auth.SCOPES:
        raise Invalid(f"unknown scope {', '.join(sorted(unknown))}; choose of {', '.join(sorted(auth.SCOPES))}")
    path, token = _path(session), Clock().token()
    made = token_file.add(path, token, tenant, scope, name)
    if session.as_json:
        screen.print_json(
            {"id": token_file.short(made.sha256), "token": token, "tenant": tenant, "scopes": scope, "name": name}
        )
    else:
        print(token)


@command(tokens, "list")
def token_list(session: Session) -> None:
    """Tokens that were made with `create`, without what they are."""
    from serve_app import auth, token_file

    found = [
        {"id": token_file.short(each.sha256), "name": each.name, "tenant": each.tenant, "scopes": list(each.scopes)}
        for each in auth.file_grants(_path(session))
    ]
    titles = ("id", "name", "tenant", "scopes")
    session.show_rows(found, titles, lambda each: (each["id"], each["name"], each["tenant"], ", ".join(each["scopes"])))


@command(tokens, "revoke")
def token_revoke(
    session: Session, named: Annotated[str, typer.Argument(help="Its name or id, as `token list` shows them.")]
) -> None:
    """Take a token back. Requests are refused a second later; sockets end within 30 s, streams when they would."""
    from serve_app import token_file

    gone = token_file.remove(_path(session), named)
    if session.as_json:
        screen.print_json({"id": token_file.short(gone.sha256), "name": gone.name, "revoked": True})
    else:
        screen.say(f"{named} is revoked")


def _path(session: Session) -> Path:
    """The file of the server meant. Raises Invalid when that is elsewhere."""
    if (session.target_url or os.environ.get("ORCHESTRATOR_URL")) and not session.target().local:
        raise Invalid("tokens are made and taken back on the server's machine, with its --data-dir and without --url")
    return read_settings(os.environ, home=str(session.home)).more_tokens_path

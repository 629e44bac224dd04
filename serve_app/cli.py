"""The `orchestrator` command.

Answers go to standard output (tables, or JSON with `--json`), progress and errors to standard error.
Exit status: 0 done; 1 refused, or no server; 2 wrong usage; 3 the run that was waited for failed, 4 it was
cancelled; 78 the server refuses to start with its tokens; 130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from actors.settings import Settings, read_settings
from orchestrator.errors import Conflict, Invalid, NotFound, OrchestratorError
from serve_app import (
    agent_commands,
    archive_commands,
    artifact_commands,
    backup_commands,
    bundle_commands,
    cluster_commands,
    dag_commands,
    job_commands,
    limit_commands,
    pipeline_commands,
    plan_commands,
    plane_commands,
    pool_commands,
    run_commands,
    screen,
    start_commands,
    starter_commands,
    token_commands,
    waiting_commands,
)
from serve_app.api_client import ApiRefused, Json, ServerUnreachable
from serve_app.session import Session, command, group

app = group("Durable workflows inside a Ray cluster.")
app.add_typer(start_commands.starting)
app.add_typer(agent_commands.agents)
app.add_typer(archive_commands.archiving)
app.add_typer(plane_commands.planes)
app.add_typer(backup_commands.backups)
for _group, _name in (
    (dag_commands.dags, "dags"),
    (artifact_commands.artifacts, "artifacts"),
    (bundle_commands.bundles, "bundles"),
    (run_commands.runs, "runs"),
    (waiting_commands.approvals, "approvals"),
    (cluster_commands.workers, "workers"),
    (cluster_commands.shares, "shares"),
    (limit_commands.limits, "limits"),
    (pool_commands.pools, "pools"),
    (starter_commands.assets, "assets"),
    (plan_commands.plans, "plan"),
    (plan_commands.instances, "instances"),
    (job_commands.jobs, "jobs"),
    (pipeline_commands.pipelines, "pipelines"),
    (token_commands.tokens, "token"),
):
    app.add_typer(_group, name=_name)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its status."""
    try:
        app(args=None if arguments is None else list(arguments))
    except OrchestratorError as error:
        screen.print_error(str(error), _hint(error))
        sys.exit(_status_of(error))
    sys.exit(0)


# ------------------------------------------------------------------ the server


@app.command("up")
def up_command(
    host: Annotated[str | None, typer.Option(help="Listen address, default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Listen port, default 8000.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker slots, default: one per CPU.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory, default ~/.orchestrator.")] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="Redis or Valkey for the journal, default: one of ours.")
    ] = None,
    dags: Annotated[
        Path | None, typer.Option(help="File or folder with DAGs to deploy, as `dags deploy` does.")
    ] = None,
    no_bundle: Annotated[bool, typer.Option("--no-bundle", help="As of `dags deploy`.")] = False,
    blueprints: Annotated[
        Path | None, typer.Option(help="Folder with blueprints of jobs (Python, YAML, JSON).")
    ] = None,
    runners: Annotated[
        int | None, typer.Option(min=0, help="Runners of CI pipelines in the cluster, default 0.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, default: one of our own.")] = None,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="Start Ray without its dashboard.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return once ready; the server stays.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the credentials as JSON when ready.")] = False,
) -> None:
    """Start everything: journal, Ray, actors and HTTP. Ends with Ctrl-C or `orchestrator down`."""
    from serve_app import up

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "workers": workers,
        "home": None if data_dir is None else str(data_dir),
        "redis_url": redis_url,
        "blueprints_dir": None if blueprints is None else str(blueprints.absolute()),
        "pipelines_incluster_runners": runners,
        "ray_address": address,
        "dashboard": False if no_dashboard else None,
    }
    settings = read_settings(os.environ, **given)
    plan = up.Plan(settings, None if dags is None else dags.absolute(), no_bundle)
    if plan.dags is not None and not plan.dags.exists():
        raise Invalid(f"--dags {dags}: no such file or folder")
    if detach:
        server = up.detach(plan, screen.say)
        _print_ready(settings, server, as_json)
    else:
        up.serve(plan, screen.say, lambda server: _print_ready(settings, server, as_json))


def _print_ready(settings: Settings, server: Any, as_json: bool) -> None:
    from serve_app import home

    if as_json:
        screen.print_json(home.read_credentials(Path(settings.home)))
        sys.stdout.flush()
        return
    facts = {"API": server.url, "docs": f"{server.url}/docs", "Ray dashboard": server.dashboard_url}
    screen.print_facts({**facts, "tokens": settings.path("credentials.json")})


@command(app, "down")
def down_command(session: Session) -> None:
    """Stop the server of the data directory. What it accepted goes on at the next start."""
    from serve_app import up

    stopped = up.down(session.home, (lambda _: None) if session.as_json else screen.say)
    if session.as_json:
        screen.print_json({"stopped": stopped})
    else:
        screen.print_line("stopped" if stopped else f"nothing runs on {session.home}")


@command(app, "status")
def status_command(session: Session) -> None:
    """Tell whether the server runs, and how it is. Exit status 1 when it is not ready."""
    facts = _status(session)
    if session.as_json:
        screen.print_json(facts)
    else:
        screen.print_facts({name.replace("_", " "): value for name, value in facts.items()})
    raise typer.Exit(0 if facts["ready"] else 1)


def _status(session: Session) -> Json:
    from actors import embedded
    from serve_app import home, up

    server = home.running(session.home)
    facts: Json = {"ready": False, "home": str(session.home), "cli_version": up.version()}
    if server is not None:
        facts |= {"pid": server.pid, "started_at": server.started_at, "dashboard": server.dashboard_url}
        facts |= {"ray_address": server.ray_address, "journal_pid": embedded.server_pid(session.home)}
    try:
        with session.api() as api:
            facts["url"] = api.url
            status, ready = api.root("/ready")
            _, health = api.root("/health")
        facts |= {"ready": status == 200, "reason": ready.get("reason"), "health": health.get("status")}
        if ready.get("standby"):
            facts |= {"standby": True, "in_charge": ready["in_charge"]}
        facts["version"] = health.get("version")
    except (Invalid, ServerUnreachable) as error:
        facts["reason"] = str(error)
    return facts


@app.command("generate-types")
def generate_types_command(
    out: Annotated[Path, typer.Option(help="Folder to write to; it is made.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Write openapi.json, api-types.ts and api-client.ts: a typed TypeScript client. Needs no server, but npm."""
    from serve_app import typegen
    from serve_app.app import describe

    files = typegen.generate(describe(), out)
    if as_json:
        screen.print_json({"files": [str(each) for each in files]})
        return
    for each in files:
        screen.print_line(str(each))


def _status_of(error: OrchestratorError) -> int:
    from serve_app import up

    return up.REFUSED if isinstance(error, up.WeakTokens) else 1


def _hint(error: OrchestratorError) -> str | None:
    """What to do next."""
    return job_commands.hint(error) or pipeline_commands.hint(error) or _general_hint(error)


def _general_hint(error: OrchestratorError) -> str | None:
    match error:
        case ServerUnreachable():
            return "see whether it runs with `orchestrator status`; start it with `orchestrator up`"
        case ApiRefused(status=401):
            return "give a token of this server with --token or ORCHESTRATOR_TOKEN (credentials.json holds three)"
        case ApiRefused(status=403) if "ORCHESTRATOR_ALLOW_BUNDLES" in error.message:
            return "deploy on the server's machine, let its operator allow it, or use --no-bundle if it has the code"
        case ApiRefused(status=403):
            return "use a token with that scope; `orchestrator token create` makes one"
        case ApiRefused(status=404) if "Orchestrator" in error.message:
            return "see what there is with `orchestrator instances list`"
        case ApiRefused(status=404) if "Plan" in error.message:
            return "see what there is with `orchestrator plan list`"
        case ApiRefused(status=409) if "being run by" in error.message:
            return "follow it with `orchestrator instances events -f`, or end it with `orchestrator instances shutdown`"
        case ApiRefused(status=404) if "dag" in error.message.lower():
            return "see what there is with `orchestrator dags list`; deploy with `orchestrator dags deploy FILE`"
        case ApiRefused(status=404) if noun := re.match(r"(pool|bundle|worker|limit)\b", error.message):
            return f"see what there is with `orchestrator {noun[1]}s list`"
        case ApiRefused(status=404):
            return "see what there is with `orchestrator runs list`"
        case ApiRefused(status=409):
            return "look at its present state with `orchestrator runs show` or `orchestrator dags show`, then decide"
        case NotFound(kind="token"):
            return "see what there is with `orchestrator token list`"
        case Conflict() if "runs" in str(error):
            return "`orchestrator status` tells what runs"
    return None


if __name__ == "__main__":
    main()

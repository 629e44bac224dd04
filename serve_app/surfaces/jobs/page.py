"""The page at `/_public/docs`: every endpoint of this surface, and one entry for each loaded blueprint.

Plain HTML without a script or anything from elsewhere; the machine's description is `/openapi.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from orchestrator.blueprint import Blueprint
from serve_app.surfaces.jobs import docs
from serve_app.surfaces.jobs.endpoints import CLIENT_ENDPOINTS, CREATE, PUBLIC_ENDPOINTS, SOCKETS, V1, WORKER_ENDPOINTS

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% } td { border-top: 1px solid #ddd; padding: .3rem .6rem .3rem 0 }
td:first-child { width: 4rem; font-weight: 600 } code { background: #f4f4f4; padding: .1rem .3rem }
"""


def html(blueprints: Sequence[tuple[Blueprint, int]]) -> str:
    """The whole page."""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Orchestrator API: jobs</title>",
        f"<style>{_STYLE}</style></head><body><h1>Jobs and remote workers</h1>",
        '<p>Described for machines in <a href="/openapi.json">OpenAPI</a>, and all of this server in '
        '<a href="/docs">its pages</a>.</p>',
        *_section("Blueprints", "<code>X-Client-Token</code>, scope client", _blueprints(blueprints)),
        *_section("Clients", "<code>X-Client-Token</code>, scope client", _listed(CREATE, *CLIENT_ENDPOINTS)),
        *_section("Workers", "<code>X-Worker-Token</code>", _listed(*WORKER_ENDPOINTS)),
        *_section("Commands to workers", "<code>X-Worker-Token</code>", [_row("WS", path, "") for path in SOCKETS]),
        *_section("Public", "no token", _listed(*PUBLIC_ENDPOINTS)),
        "</body></html>",
    ]
    return "\n".join(parts)


def _section(title: str, needs: str, rows: Sequence[str]) -> Iterator[str]:
    yield f"<h2>{title}</h2><p>{needs}</p><table>"
    yield from rows
    yield "</table>"


def _blueprints(blueprints: Sequence[tuple[Blueprint, int]]) -> list[str]:
    return [
        _row("POST" if each.path else "", each.path or "run by other blueprints", _about(each, version))
        for each, version in blueprints
    ]


def _about(blueprint: Blueprint, version: int) -> str:
    name = escape(blueprint.name)
    return f'{name}, version {version}, <a href="{V1}/blueprints/{name}/graph">graph</a>'


def _listed(*endpoints: tuple[str, ...]) -> list[str]:
    return [_row(method, path, escape(docs.summary(name))) for method, path, name, *_ in endpoints]


def _row(method: str, path: str, about: str) -> str:
    return f"<tr><td>{method}</td><td><code>{escape(path)}</code></td><td>{about}</td></tr>"

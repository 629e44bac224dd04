"""The routes of one surface as one route: nobody else's patterns are tried on its paths, nor its own on theirs.

A router tries its routes one after the other; with five surfaces that is most of what finding one costs.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from serve_app.origins import is_under

_CHOSEN = "orchestrator.route"


class RouteGroup(BaseRoute):
    """Matches as the first of `routes` that does, on paths at or below `prefixes` only."""

    def __init__(self, prefixes: tuple[str, ...], routes: Sequence[BaseRoute]) -> None:
        self.routes = routes
        self._prefixes = prefixes

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """A full match before a partial one, as a router has it."""
        partial: tuple[Match, Scope] = (Match.NONE, {})
        if scope["type"] == "lifespan" or not is_under(scope["path"], self._prefixes):
            return partial
        for route in self.routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                return match, {**found, _CHOSEN: route}
            if match is Match.PARTIAL and partial[0] is Match.NONE:
                partial = match, {**found, _CHOSEN: route}
        return partial

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The route that matched answers."""
        await scope[_CHOSEN].handle(scope, receive, send)

"""Who asks: clients by token, workers by token and by the id that they say.

    clients   X-Client-Token ▸ Authorization: Bearer                       any token with scope `client`
    workers   X-Worker-Token ▸ Authorization: Bearer

    the worker id comes from   the path ▸ the body ▸ X-Worker-ID ▸ the individual token itself
    an id with a token of its own needs that token (401); any other one a token with scope `worker`

On this surface nobody is anonymous, on no listener. A worker with a token of its own speaks for nobody else: where the
path says one id and the body another, and in results and events, it learns so (403).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.ids import DEFAULT_TENANT
from serve_app.auth import Principal, Tokens, bearer_token
from serve_app.clients import Agreement, Clients
from serve_app.outside_ports import Jobs
from serve_app.problems import Forbidden, NotThatWorker, Unauthenticated
from serve_app.surfaces.jobs import parse, words


@dataclass(frozen=True, slots=True)
class ClientCaller:
    """A client that may ask."""

    tenant: str
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class WorkerCaller:
    """A worker that may speak."""

    tenant: str
    #: "" = it has not said who it is, and its token does not tell
    worker_id: str


class Callers:
    """Tells callers apart."""

    def __init__(self, tokens: Tokens, clients: Clients, jobs: Jobs) -> None:
        self._tokens = tokens
        self._clients = clients
        self._jobs = jobs

    def client(self, headers: Mapping[str, str]) -> tuple[Principal, ClientCaller]:
        """The client that sends these headers, whatever its scopes. Raises Unauthenticated."""
        token = headers.get("x-client-token") or bearer_token(headers.get("authorization"))
        if not token:
            raise Unauthenticated(words.NO_CLIENT_TOKEN)
        principal = self._tokens.principal(token)
        if principal is None:
            raise Unauthenticated(words.BAD_CLIENT_TOKEN)
        return principal, ClientCaller(principal.tenant, self._clients.of(token, principal.tenant))

    async def worker(self, headers: Mapping[str, str], named: object, in_body: object) -> WorkerCaller:
        """The worker that sends these headers.

        `named` is whom the request is about, `in_body` on whose behalf it speaks, as far as it says. Raises
        Unauthenticated, Forbidden, Invalid (the id).
        """
        token = worker_token(headers)
        claimed = named or in_body or headers.get("x-worker-id") or None
        known = await self._jobs.worker_tokens()
        if isinstance(claimed, str) and known.has(claimed):
            if not known.fits(claimed, token):
                raise Unauthenticated(words.BAD_INDIVIDUAL_TOKEN)
            if in_body and in_body != claimed:
                raise NotThatWorker(claimed, str(in_body)[:128])
            return WorkerCaller(DEFAULT_TENANT, claimed)
        return self._other_worker(token, known.owner(token), claimed, speaks=not named)

    def watched(self, headers: Mapping[str, str]) -> Callable[[], bool]:
        """Is the worker's token still what it is now? Tokens of single workers are of a file that is read on demand."""
        token = worker_token(headers)
        principal = self._tokens.principal(token)
        return lambda: self._tokens.principal(token) == principal

    def _other_worker(self, token: str, owner: str | None, claimed: object, *, speaks: bool) -> WorkerCaller:
        """A worker without a token of its own, or with the token of another one."""
        principal = self._tokens.principal(token)
        if owner is not None and principal is None:
            if claimed is None:
                return WorkerCaller(DEFAULT_TENANT, owner)
            if speaks:
                raise NotThatWorker(owner, str(claimed)[:128])
        if principal is None:
            raise Unauthenticated(words.BAD_WORKER_TOKEN)
        if "worker" not in principal.scopes:
            raise Forbidden("worker")
        return WorkerCaller(principal.tenant, "" if claimed is None else parse.worker_id(claimed))


def worker_token(headers: Mapping[str, str]) -> str:
    """The token that a worker presents. Raises Unauthenticated."""
    token = headers.get("x-worker-token") or bearer_token(headers.get("authorization"))
    if not token:
        raise Unauthenticated(words.NO_WORKER_TOKEN)
    return token

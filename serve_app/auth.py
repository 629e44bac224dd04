"""Who is asking: tokens in, principals out.

A token resolves to a tenant and scopes. The server keeps SHA-256 digests only and compares them all, in
constant time. `admin` includes `client` and `worker`. Sources, each adding to the others:

    <home>/credentials.json     admin, client, worker of tenant `default`, made at first start
    ORCHESTRATOR_ADMIN_TOKEN    admin                ORCHESTRATOR_API_KEY, CLIENT_TOKEN    client
    GLOBAL_WORKER_TOKEN         worker               ORCHESTRATOR_TOKENS_FILE              further tenants, as digests
    CLIENTS_CONFIG_PATH         client, of the tenants that it names (`actors/token_files.py`)

An empty token authenticates nobody; on a listener that others can reach it, like any weak one, keeps the
server from starting (`refusal`). Where surfaces let anonymous callers in, `ORCHESTRATOR_API_KEY` closes the
runs surface to them (`Tokens.api_key_set`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from actors.token_files import Client
from orchestrator.addresses import is_loopback
from orchestrator.errors import Invalid
from orchestrator.ids import DEFAULT_TENANT

_T = TypeVar("_T", dict[str, Any], list[Any])


#: scope -> what a holder of it may do
_INCLUDES = MappingProxyType(
    {
        "admin": frozenset({"admin", "client", "worker"}),
        "client": frozenset({"client"}),
        "worker": frozenset({"worker"}),
    }
)
SCOPES = frozenset(_INCLUDES)

_API_KEY = "ORCHESTRATOR_API_KEY"
#: environment variable -> scope of the token in it
_VARIABLES = MappingProxyType(
    {
        "ORCHESTRATOR_ADMIN_TOKEN": "admin",
        _API_KEY: "client",
        "CLIENT_TOKEN": "client",
        "GLOBAL_WORKER_TOKEN": "worker",
    }
)

_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_SHORTEST_TOKEN = 16
_KNOWN_TOKENS = frozenset({"secure-orchestrator-token", "secure-worker-token", "changeme", "secret", "token"})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request acts as."""

    tenant: str
    scopes: frozenset[str]
    #: whose token it is; "" = anybody's
    name: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the holder of one token may do. Plain values, so that it travels to replicas."""

    #: SHA-256 of the token, lower-case hex
    sha256: str
    tenant: str
    scopes: tuple[str, ...]
    #: where the token was configured, or what its tenant calls it
    name: str = ""
    #: of the file that is read again while the server runs (`serve_app/token_file.py`)
    of_file: bool = False


#: what an anonymous caller may do where anonymity is allowed
ANYONE = Principal(DEFAULT_TENANT, SCOPES)


class Tokens:
    """Every token the server knows."""

    def __init__(
        self, grants: Iterable[Grant], file_changed: Callable[[], Iterable[Grant] | None] = lambda: None
    ) -> None:
        """`file_changed` answers what stands in the place of all grants `of_file` from now on; None = nothing new."""
        every = tuple(grants)
        self._fixed = _digests(each for each in every if not each.of_file)
        self._known = _digests(every)
        self._file_changed = file_changed
        #: the operator wants a token of everybody, on any listener
        self.api_key_set = any(each.name == _API_KEY for each in every)

    def principal(self, token: str) -> Principal | None:
        """Who presents `token`; None for a token we do not know. Takes the same time either way."""
        if (now := self._file_changed()) is not None:
            self._known = (*self._fixed, *_digests(now))
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal
        return found if token else None

    def bearer(self, authorization: str | None) -> Principal | None:
        """Who sends this `Authorization` header with scheme Bearer."""
        token = bearer_token(authorization)
        return None if token is None else self.principal(token)


def bearer_token(authorization: str | None) -> str | None:
    """The token in an `Authorization` header of scheme Bearer, whatever its case; None for any other header."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def grant(token: str, scope: str, *, tenant: str = DEFAULT_TENANT, name: str = "") -> Grant:
    """The grant of a token given in plain text."""
    return Grant(hashlib.sha256(token.encode()).hexdigest(), tenant, (scope,), name)


def plain_tokens(environ: Mapping[str, str], credentials: Path) -> dict[str, tuple[str, str]]:
    """Tokens configured in plain text: where from -> (scope, token). Raises Invalid for an unreadable file."""
    found = {name: (scope, environ[name]) for name, scope in _VARIABLES.items() if name in environ}
    if credentials.exists():
        tokens = _json_file(credentials, dict).get("tokens", {})
        found |= {f"{credentials.name}: {scope}": (scope, str(tokens[scope])) for scope in SCOPES if scope in tokens}
    return found


def read_grants(
    environ: Mapping[str, str], credentials: Path, more_tokens: Path, clients: Iterable[Client] = ()
) -> tuple[Grant, ...]:
    """All grants of this server. Raises Invalid for a file that cannot be understood."""
    plain = plain_tokens(environ, credentials)
    own = [grant(token, scope, name=source) for source, (scope, token) in plain.items() if token]
    named = [Grant(each.sha256, each.tenant, ("client",), each.name) for each in clients]
    return (*own, *file_grants(more_tokens), *named)


def file_grants(path: Path) -> tuple[Grant, ...]:
    """What the file of further tokens grants; nothing when there is none. Raises Invalid when it is not understood."""
    entries = _json_file(path, list) if path.exists() else []
    return tuple(_file_grant(each, f"{path.name}/{n}") for n, each in enumerate(entries))


def refusal(host: str, tokens: Mapping[str, str] | Iterable[str]) -> str | None:
    """Why the server must not start on `host` with these plain-text tokens, or None.

    `tokens` maps where a token comes from to the token; a bare collection of tokens will do.
    """
    if is_loopback(host):
        return None
    named = tokens if isinstance(tokens, Mapping) else {f"token {n}": each for n, each in enumerate(tokens, 1)}
    reasons = [f"{source} {weakness}" for source, token in named.items() if (weakness := _weakness(token))]
    return f"refusing to listen on {host}: {'; '.join(reasons)}" if reasons else None


def anonymous(listen_host: str, headers: Mapping[str, str], *, allowed: bool = True) -> Principal | None:
    """Who acts without a token, on a surface whose contract lets anonymous callers in.

    Nobody unless both the listener and the `Host` header are loopback and no proxy stands in between.
    """
    proxied = any(name == "forwarded" or name.startswith("x-forwarded-") for name in headers)
    if not allowed or proxied or not is_loopback(listen_host) or not is_loopback(_host_name(headers.get("host", ""))):
        return None
    return ANYONE


def basic_password(authorization: str | None) -> str | None:
    """The password in an `Authorization` header with scheme Basic; None when there is none."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return text.partition(":")[2]


def _digests(grants: Iterable[Grant]) -> tuple[tuple[bytes, Principal], ...]:
    return tuple((bytes.fromhex(each.sha256), _principal(each)) for each in grants)


def _principal(each: Grant) -> Principal:
    scopes = frozenset[str]().union(*(_INCLUDES[scope] for scope in each.scopes))
    return Principal(each.tenant, scopes, each.name or f"token {each.sha256[:12]}")


def _weakness(token: str) -> str | None:
    if not token:
        return "is empty"
    if token in _KNOWN_TOKENS:
        return "is a well-known default"
    return f"is shorter than {_SHORTEST_TOKEN} characters" if len(token) < _SHORTEST_TOKEN else None


def _host_name(header: str) -> str:
    """The host of a `Host` header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0]


def _json_file(path: Path, kind: type[_T]) -> _T:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Invalid(f"{path}: cannot be read: {type(error).__name__}") from None
    if not isinstance(content, kind):
        raise Invalid(f"{path}: a JSON {_JSON_NAMES[kind]} expected")
    return content


_JSON_NAMES: Mapping[type, str] = MappingProxyType({dict: "object", list: "array"})


def _file_grant(entry: Any, where: str) -> Grant:
    match entry:
        case {"sha256": str(sha256), "tenant": str(tenant), "scopes": list(scopes)} if tenant:
            if (
                _DIGEST.fullmatch(sha256)
                and scopes
                and all(isinstance(each, str) and each in SCOPES for each in scopes)
            ):
                return Grant(sha256.lower(), tenant, tuple(scopes), str(entry.get("name", "")), of_file=True)
    raise Invalid(f'{where}: {{"sha256": 64 hex digits, "tenant", "scopes": of {sorted(SCOPES)}, "name"}} expected')

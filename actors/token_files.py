"""The operator's two TOML files of callers of the jobs surface; tokens are hashed as they are read.

    CLIENTS_CONFIG_PATH   [name]       token, plan, monthly_attempts, webhook_secret, tenant (default `default`)
    WORKERS_CONFIG_PATH   [worker_id]  token

Keys that we do not know are left alone: files of older installations have more. Everything raises Invalid with the
file's name, and never repeats what stands in it. Source: jobs contract, sections 3, 4, 8, 9a.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import Invalid

WORKER_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Client:
    """One entry of the clients' file."""

    name: str
    #: SHA-256 of the token, lower-case hex
    sha256: str
    tenant: str = "default"
    plan: str | None = None
    #: jobs it may create in a month; None = any number
    monthly_attempts: int | None = None
    webhook_secret: str | None = field(default=None, repr=False)


def read_clients(path: str) -> tuple[Client, ...]:
    """The clients of the file at `path`; "" = none. Raises Invalid."""
    return tuple(_client(f"{path}: [{name}]", name, entry) for name, entry in _entries(path).items())


def read_worker_tokens(path: str) -> dict[str, str]:
    """Worker id -> SHA-256 of its individual token, of the file at `path`; "" = none. Raises Invalid."""
    found = {}
    for worker_id, entry in _entries(path).items():
        if not WORKER_ID.fullmatch(worker_id):
            raise Invalid(f"{path}: [{worker_id[:100]}] is no worker id: {WORKER_ID.pattern}")
        found[worker_id] = digest(_token(f"{path}: [{worker_id}]", entry))
    return found


def plain_file_tokens(*paths: str) -> dict[str, str]:
    """Where from -> token, as it stands in these files: for who judges how weak they are. Raises Invalid."""
    return {
        f"{path}: [{name}]": _token(f"{path}: [{name}]", entry)
        for path in paths
        for name, entry in _entries(path).items()
    }


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _client(where: str, name: str, entry: Mapping[str, Any]) -> Client:
    most = entry.get("monthly_attempts")
    if most is not None and (type(most) is not int or most < 0):
        raise Invalid(f"{where}: monthly_attempts must be a whole number of at least 0")
    return Client(
        name=name,
        sha256=digest(_token(where, entry)),
        tenant=_text(where, entry, "tenant") or "default",
        plan=_text(where, entry, "plan"),
        monthly_attempts=most,
        webhook_secret=_text(where, entry, "webhook_secret"),
    )


def _token(where: str, entry: Mapping[str, Any]) -> str:
    token = _text(where, entry, "token")
    if not token:
        raise Invalid(f"{where}: a token is needed")
    return token


def _text(where: str, entry: Mapping[str, Any], name: str) -> str | None:
    value = entry.get(name)
    if value is not None and not isinstance(value, str):
        raise Invalid(f"{where}: {name} must be text")
    return value


def _entries(path: str) -> dict[str, dict[str, Any]]:
    if not path:
        return {}
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # the parser's own text may repeat a token
        raise Invalid(f"{path}: cannot be read: {type(error).__name__}") from None
    for name, entry in content.items():
        if not isinstance(entry, dict):
            raise Invalid(f"{path}: {name} must be a table")
    return content

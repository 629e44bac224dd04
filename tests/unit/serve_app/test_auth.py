"""Tokens, principals, and when the server refuses to start."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from actors.token_files import Client, digest
from orchestrator.addresses import is_loopback
from orchestrator.errors import Invalid
from serve_app.auth import (
    ANYONE,
    Tokens,
    anonymous,
    bearer_token,
    grant,
    plain_tokens,
    read_grants,
    refusal,
)
from serve_app.clients import Clients, agreements_of

GOOD = "0123456789abcdef"


def test_admin_includes_the_other_scopes() -> None:
    principal = Tokens([grant(GOOD, "admin")]).principal(GOOD)
    assert principal is not None
    assert (principal.tenant, principal.scopes) == ("default", {"admin", "client", "worker"})


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {GOOD}", GOOD, "Bearer other-token-000000", f"Bearer {GOOD}x"]
)
def test_an_unknown_or_malformed_header_is_nobody(header: str | None) -> None:
    assert Tokens([grant(GOOD, "client")]).bearer(header) is None


@pytest.mark.parametrize("header", [f"Bearer {GOOD}", f"bearer {GOOD}", f"BEARER  {GOOD} "])
def test_the_scheme_is_case_insensitive(header: str) -> None:
    assert Tokens([grant(GOOD, "client")]).bearer(header) is not None


@pytest.mark.parametrize(("header", "token"), [
    (None, None), ("", None), ("Basic x", None), ("x", None), ("Bearer x", "x"), ("bearer  x ", "x"), ("Bearer", ""),
])  # fmt: skip
def test_only_the_bearer_scheme_brings_a_token(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token


@pytest.mark.parametrize(("environ", "is_set"), [
    ({"ORCHESTRATOR_API_KEY": GOOD}, True), ({"ORCHESTRATOR_API_KEY": ""}, False), ({"CLIENT_TOKEN": GOOD}, False),
])  # fmt: skip
def test_an_api_key_is_set_when_it_is_not_empty(environ: dict[str, str], is_set: bool, tmp_path: Path) -> None:
    assert Tokens(read_grants(environ, tmp_path / "none", tmp_path / "none")).api_key_set is is_set


def test_an_empty_token_authenticates_nobody() -> None:
    assert Tokens([grant("", "admin")]).principal("") is None


def test_a_grant_does_not_hold_its_token() -> None:
    assert GOOD not in repr(grant(GOOD, "client"))


def test_environment_and_files_all_add_tokens(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"url": "u", "tokens": {"admin": "file-admin-token-00"}}))
    more = tmp_path / "tokens.json"
    digest = hashlib.sha256(b"tenant-token-000000").hexdigest()
    more.write_text(json.dumps([{"sha256": digest, "tenant": "acme", "scopes": ["client", "worker"], "name": "ci"}]))
    environ = {
        "ORCHESTRATOR_API_KEY": "env-api-key-0000000",
        "GLOBAL_WORKER_TOKEN": "env-worker-00000000",
        "CLIENT_TOKEN": "",
    }
    tokens = Tokens(read_grants(environ, credentials, more))
    scopes = {
        token: sorted(found.scopes) if (found := tokens.principal(token)) else None
        for token in ("file-admin-token-00", "env-api-key-0000000", "env-worker-00000000", "tenant-token-000000", "")
    }
    assert scopes == {
        "file-admin-token-00": ["admin", "client", "worker"],
        "env-api-key-0000000": ["client"],
        "env-worker-00000000": ["worker"],
        "tenant-token-000000": ["client", "worker"],
        "": None,
    }
    found = tokens.principal("tenant-token-000000")
    assert found is not None
    assert found.tenant == "acme"


@pytest.mark.parametrize(
    "content",
    ["{", "{}", '[{"sha256":"zz","tenant":"t","scopes":["client"]}]', '[{"tenant":"t"}]', "[1]",
     json.dumps([{"sha256": "0" * 64, "tenant": "t", "scopes": ["root"]}]),
     json.dumps([{"sha256": "0" * 64, "tenant": "t", "scopes": [[]]}]),
     json.dumps([{"sha256": "0" * 64, "tenant": "", "scopes": ["client"]}])],
)  # fmt: skip
def test_a_tokens_file_that_cannot_be_understood_is_refused(content: str, tmp_path: Path) -> None:
    more = tmp_path / "tokens.json"
    more.write_text(content)
    with pytest.raises(Invalid, match=r"tokens\.json"):
        read_grants({}, tmp_path / "none.json", more)


@pytest.mark.parametrize("weak", ["", "short", "secure-orchestrator-token", "secure-worker-token", "changeme", "token"])
def test_a_weak_token_keeps_a_reachable_server_from_starting(weak: str) -> None:
    reason = refusal("0.0.0.0", {"CLIENT_TOKEN": weak, "ORCHESTRATOR_ADMIN_TOKEN": GOOD})
    assert reason is not None
    assert "CLIENT_TOKEN" in reason
    assert "ORCHESTRATOR_ADMIN_TOKEN" not in reason
    assert weak == "" or weak in ("short", "token") or weak not in reason
    assert refusal("127.0.0.1", {"CLIENT_TOKEN": weak}) is None


def test_strong_tokens_let_a_reachable_server_start() -> None:
    assert refusal("0.0.0.0", [GOOD]) is None
    assert refusal("0.0.0.0", [GOOD, "x"]) == "refusing to listen on 0.0.0.0: token 2 is shorter than 16 characters"


def test_a_token_that_is_set_but_empty_is_seen(tmp_path: Path) -> None:
    configured = plain_tokens({"CLIENT_TOKEN": ""}, tmp_path / "none.json")
    assert configured == {"CLIENT_TOKEN": ("client", "")}


@pytest.mark.parametrize(("host", "loopback"), [
    ("localhost", True), ("LOCALHOST", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True),
    ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.com", False), ("", False),
    ("localhost.evil", False),
])  # fmt: skip
def test_loopback_is_a_matter_of_the_name(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(("listen", "headers", "allowed", "anyone"), [
    ("127.0.0.1", {"host": "localhost:8000"}, True, True),
    ("127.0.0.1", {"host": "[::1]:8000"}, True, True),
    ("127.0.0.1", {"host": "localhost:8000"}, False, False),
    ("127.0.0.1", {"host": "evil.example:8000"}, True, False),
    ("127.0.0.1", {}, True, False),
    ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "1.2.3.4"}, True, False),
    ("127.0.0.1", {"host": "localhost", "forwarded": "for=1.2.3.4"}, True, False),
    ("0.0.0.0", {"host": "localhost"}, True, False),
])  # fmt: skip
def test_anonymity_ends_where_the_machine_does(
    listen: str, headers: dict[str, str], allowed: bool, anyone: bool
) -> None:
    assert anonymous(listen, headers, allowed=allowed) == (ANYONE if anyone else None)


def test_clients_of_a_file_are_callers_on_every_surface(tmp_path: Path) -> None:
    token = "a-token-of-acme-0000"
    clients = [Client("acme", digest(token), "t2", monthly_attempts=1)]
    acme = Tokens(read_grants({}, tmp_path / "none", tmp_path / "none", clients)).principal(token)
    assert acme is not None
    assert (acme.tenant, acme.scopes) == ("t2", {"client"})
    agreements = Clients(agreements_of(clients))
    assert (agreements.of(token, "t2").name, agreements.of(token, "t2").monthly_attempts) == ("acme", 1)
    assert (agreements.of("another", "default").name, agreements.of("another", "t").monthly_attempts) == (
        "default",
        None,
    )

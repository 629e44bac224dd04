"""Tokens that come and go while a server runs."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from orchestrator.errors import Invalid, NotFound
from serve_app import token_file
from serve_app.auth import Grant, Tokens, file_grants, grant, read_grants
from serve_app.token_file import TokenFile

FIXED, OURS = "a-token-of-the-start", "a-token-that-comes-later"


class Running:
    """A server's tokens, and the seconds that have passed."""

    def __init__(self, path: Path) -> None:
        self.now_s = 0.0
        self.path = path
        grants = (grant(FIXED, "admin"), *read_grants({}, path.with_name("none"), path))
        self.tokens = Tokens(grants, TokenFile(path, lambda: self.now_s).changed)

    def knows(self, token: str) -> bool:
        """A second later."""
        self.now_s += 1.0
        return self.tokens.principal(token) is not None


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path / "tokens.json")


def test_a_token_counts_from_when_it_is_made_until_it_is_revoked(running: Running) -> None:
    assert not running.knows(OURS)
    made = token_file.add(running.path, OURS, "acme", ["client"], "ci")
    assert running.knows(OURS)
    found = running.tokens.principal(OURS)
    assert found is not None
    assert (found.tenant, found.scopes, found.name) == ("acme", {"client"}, "ci")
    assert token_file.remove(running.path, "ci") == file_grant(made)
    assert not running.knows(OURS)
    assert running.knows(FIXED)


def test_the_file_is_looked_at_once_a_second(running: Running) -> None:
    assert running.knows(FIXED)
    token_file.add(running.path, OURS, "acme", ["client"], "")
    assert running.tokens.principal(OURS) is None
    running.now_s += 0.9
    assert running.tokens.principal(OURS) is None
    running.now_s += 0.1
    assert running.tokens.principal(OURS) is not None


def test_a_damaged_file_changes_nothing_until_it_is_mended(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    token_file.add(running.path, OURS, "acme", ["client"], "")
    whole = running.path.read_text()
    assert running.knows(OURS)
    running.path.write_text(whole[:-4])
    assert running.knows(OURS)
    assert "tokens.json" in caplog.text
    running.path.write_text("[]")
    assert not running.knows(OURS)


def test_tokens_of_a_file_that_is_on_another_machine_stay(tmp_path: Path) -> None:
    elsewhere = tmp_path / "there" / "tokens.json"
    token_file.add(elsewhere, OURS, "acme", ["client"], "")
    tokens = Tokens(file_grants(elsewhere), TokenFile(tmp_path / "here" / "tokens.json").changed)
    assert tokens.principal(OURS) is not None


def test_a_file_that_is_removed_grants_nothing(running: Running) -> None:
    token_file.add(running.path, OURS, "acme", ["client"], "")
    assert running.knows(OURS)
    running.path.unlink()
    assert not running.knows(OURS)


def test_a_token_is_revoked_by_its_name_or_the_beginning_of_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    made = [token_file.add(path, f"token-{n}-0123456789", "t", ["client"], name) for n, name in enumerate("aab")]
    with pytest.raises(Invalid, match=token_file.short(made[1].sha256)):
        token_file.remove(path, "a")
    with pytest.raises(NotFound):
        token_file.remove(path, made[0].sha256[:3])
    token_file.remove(path, token_file.short(made[0].sha256))
    token_file.remove(path, "a")
    assert [each.sha256 for each in file_grants(path)] == [made[2].sha256]


def test_tokens_made_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(token_file.add, [(path, f"token-{n}-0123456789", "t", ["client"], str(n)) for n in range(40)])
    assert {each.name for each in file_grants(path)} == {str(n) for n in range(40)}


def test_a_file_that_cannot_be_understood_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([{"sha256": "zz"}]))
    with pytest.raises(Invalid, match=r"tokens\.json/0"):
        token_file.add(path, OURS, "t", ["client"], "")
    assert json.loads(path.read_text()) == [{"sha256": "zz"}]


def file_grant(made: Grant) -> Grant:
    """As it is read back."""
    return Grant(made.sha256, made.tenant, made.scopes, made.name, of_file=True)

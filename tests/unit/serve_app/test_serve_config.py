"""The application as Serve builds it from a config file: what it refuses, and what it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ray.serve import Application
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

from actors import spawn
from actors.settings import Settings
from orchestrator.errors import Invalid, JournalUnavailable, Unavailable
from serve_app import serve_config, up

TOKEN = "a" * 32
SECRETS = {"REDIS_URL": "redis://j:6379", "ORCHESTRATOR_SECRET_KEY": "k" * 43, "ORCHESTRATOR_ADMIN_TOKEN": TOKEN}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Settings]:
    """Settings that the actors were started with; the environment is that of a pod."""
    for name, value in (SECRETS | {"ORCHESTRATOR_HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    for name in ("ORCHESTRATOR_API_KEY", "CLIENT_TOKEN", "GLOBAL_WORKER_TOKEN", "ORCHESTRATOR_TOKENS_FILE"):
        monkeypatch.delenv(name, raising=False)
    found: list[Settings] = []
    monkeypatch.setattr(spawn, "start", found.append)
    monkeypatch.setattr(up, "publish_blueprints", lambda settings, say: None)
    return found


def build(args: Mapping[str, Any] | None = None) -> Application:
    return call_user_app_builder_with_args_if_necessary(serve_config.app, dict(args or {}))


def test_serve_gets_an_application_and_the_actors_are_started(started: list[Settings]) -> None:
    assert isinstance(build(), Application)
    (settings,) = started
    assert settings.journal_url == SECRETS["REDIS_URL"]


def test_the_number_of_workers_does_not_depend_on_where_an_actor_runs(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_WORKERS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    build()
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert started[0].worker_count == 6


class Slow:
    """Time, and a journal that does not answer before some time has passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, there_s: float) -> None:
        self.now_s, self.there_s = 0.0, there_s
        monkeypatch.setattr(serve_config, "time", self)
        monkeypatch.setattr(up, "publish_blueprints", self.publish)

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def publish(self, _settings: Settings, _say: object) -> None:
        if self.now_s < self.there_s:
            raise JournalUnavailable("nobody listens yet")


def test_a_journal_that_is_not_there_yet_is_waited_for_since_serve_does_not_try_again_for_long(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    Slow(monkeypatch, there_s=100.0)
    assert isinstance(build(), Application)
    assert len(started) == 1


def test_what_does_not_come_is_told_in_the_end(started: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, there_s=10_000.0)
    with pytest.raises(Unavailable, match="nobody listens yet"):
        build()
    assert serve_config.PATIENCE_S <= slow.now_s < serve_config.PATIENCE_S + 60
    assert started == []


def test_nobody_is_anonymous_whatever_the_environment_says(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOST", "127.0.0.1")
    build()
    assert started[0].host == "0.0.0.0"


@pytest.mark.parametrize("missing", list(SECRETS))
def test_it_is_refused_without_what_it_cannot_make_up(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(Invalid, match=missing):
        build()
    assert started == []


def test_it_is_refused_with_a_token_that_is_easily_guessed(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_ADMIN_TOKEN", "changeme")
    with pytest.raises(up.WeakTokens, match="ORCHESTRATOR_ADMIN_TOKEN"):
        build()
    assert started == []


def test_args_of_the_config_file_are_refused_since_actors_would_not_follow_them(started: list[Settings]) -> None:
    with pytest.raises(Invalid, match="workers"):
        build({"workers": 8})
    assert started == []

"""Settings: precedence, units, round trip; and the clock that mints ids."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from actors.clock import Clock
from actors.settings import Settings, read_settings
from orchestrator.errors import Invalid
from serve_app.up import check_extras


def test_defaults_are_those_of_the_contracts() -> None:
    settings = read_settings({"HOME": "/home/ann"})
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.dags_rate_limit_rps, settings.dags_rate_limit_burst) == (10.0, 20)
    assert settings.dags_backfill_max_windows == 100_000
    assert (settings.rate_limit_max, settings.rate_limit_window_ms, settings.runs_default_mode) == (
        120,
        60_000,
        "redis",
    )
    assert settings.max_body_bytes == 16 * 2**20
    assert settings.entrypoint_allow == ()
    assert not settings.allow_shell
    assert settings.allow_anonymous
    assert settings.embedded


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        ({"API_PORT": "3"}, 3),
        ({"API_PORT": "3", "PORT": "2"}, 2),
        ({"API_PORT": "3", "PORT": "2", "ORCHESTRATOR_PORT": "1"}, 1),
        ({"ORCHESTRATOR_PORT": "", "PORT": "2"}, 2),
    ],
)
def test_the_first_port_variable_that_is_set_wins(environ: dict[str, str], port: int) -> None:
    assert read_settings(environ).port == port


def test_the_command_line_wins_over_the_environment_unless_it_says_nothing() -> None:
    environ = {"ORCHESTRATOR_HOST": "10.0.0.1", "ORCHESTRATOR_WORKERS": "7"}
    settings = read_settings(environ, host="0.0.0.0", workers=None)
    assert (settings.host, settings.workers) == ("0.0.0.0", 7)


def test_lists_and_switches_are_read_from_text() -> None:
    environ = {
        "CORS_ORIGINS": "https://a.example, https://b.example,",
        "ORCHESTRATOR_ALLOW_SHELL": "1",
        "ORCHESTRATOR_ALLOW_ANONYMOUS": "0",
    }
    settings = read_settings(environ)
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.allow_shell
    assert not settings.allow_anonymous


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("ORCHESTRATOR_PORT", "eight", "a whole number expected"),
        ("ORCHESTRATOR_CANCEL_GRACE_S", "soon", "a number expected"),
        ("ORCHESTRATOR_ALLOW_SHELL", "maybe", "0 or 1 expected"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_by_its_name(name: str, text: str, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_settings({name: text})
    assert caught.value.details == ((name, expected),)
    assert name in str(caught.value)


@pytest.mark.parametrize(("text", "number"), [
    ("3", 3), ("3.9", 3), ("1e5", 100_000), ("0", 120), ("-5", 120), ("0.5", 120), ("many", 120), ("120abc", 120),
    ("inf", 120), ("nan", 120), ("", 120), ("0x10", 120),
])  # fmt: skip
def test_a_rate_limit_that_is_no_number_above_0_is_the_default(text: str, number: int) -> None:
    settings = read_settings({"RATE_LIMIT_MAX": text, "RATE_LIMIT_WINDOW_MS": "soon"})
    assert (settings.rate_limit_max, settings.rate_limit_window_ms) == (number, 60_000)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ORCHESTRATOR_ARCHIVE_AFTER_DAYS", "-1"), ("ORCHESTRATOR_ARCHIVE_AFTER_DAYS", "nan"),
        ("ORCHESTRATOR_ARCHIVE_AFTER_DAYS", "1e12"), ("ORCHESTRATOR_HISTORY_RETENTION_DAYS", "inf"),
        ("ORCHESTRATOR_ARTIFACTS_RETENTION_DAYS", "-1"), ("ORCHESTRATOR_ARTIFACTS_RETENTION_DAYS", "nan"),
        ("ORCHESTRATOR_ARTIFACTS_CACHE_BYTES", "-1"), ("ORCHESTRATOR_MEMORY_VALUES_BYTES", "-1"),
        ("ORCHESTRATOR_SHARE_MANUAL", "0"), ("ORCHESTRATOR_SHARE_BACKFILL", "nan"),
        ("ORCHESTRATOR_PORT", "0"), ("ORCHESTRATOR_PORT", "65536"), ("ORCHESTRATOR_WORKERS", "-1"),
        ("ORCHESTRATOR_WORKERS", "10001"), ("ORCHESTRATOR_RUN_ACTORS_MAX", "0"), ("ORCHESTRATOR_API_REPLICAS", "0"),
        ("ORCHESTRATOR_WORKER_PING_S", "0"), ("ORCHESTRATOR_WORKER_LEASE_S", "nan"),
        ("ORCHESTRATOR_CANCEL_GRACE_S", "-1"), ("ORCHESTRATOR_PASSIVATE_AFTER_S", "-1"),
        ("PIPELINES_INCLUSTER_RUNNERS", "-1"),
    ],
)  # fmt: skip
def test_a_number_that_would_break_an_actor_is_refused_at_the_start(name: str, text: str) -> None:
    with pytest.raises(Invalid, match=name):
        read_settings({name: text})


@pytest.mark.parametrize(
    "wrong", [{"archive_url": "relative"}, {"bundles_url": "nosuch://x"}, {"artifacts_url": "no://x"}]
)
def test_a_place_that_no_store_has_is_refused_at_the_start(wrong: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        check_extras(Settings(home="/h", **wrong))


def test_a_mode_of_another_name_is_refused() -> None:
    assert read_settings({"ORCHESTRATOR_RUNS_DEFAULT_MODE": "plan"}).runs_default_mode == "plan"
    with pytest.raises(Invalid, match="ORCHESTRATOR_RUNS_DEFAULT_MODE='dry': one of plan, redis, k8s expected"):
        read_settings({"ORCHESTRATOR_RUNS_DEFAULT_MODE": "dry"})


def test_the_home_is_absolute_and_knows_the_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_settings({}).home == str(tmp_path / ".orchestrator")
    monkeypatch.chdir(tmp_path)
    assert read_settings({"ORCHESTRATOR_HOME": "data"}).home == str(tmp_path / "data")


def test_settings_survive_the_way_into_an_actor() -> None:
    settings = read_settings({"CORS_ORIGINS": "*", "ORCHESTRATOR_CODE_DIRS": "/a,/b"}).with_journal("unix:///j")
    assert Settings.from_dict(settings.to_dict()) == settings
    as_json_would = settings.to_dict() | {"code_dirs": ["/a", "/b"], "of_a_newer_version": 1}
    assert Settings.from_dict(as_json_would) == settings


def test_an_outside_journal_is_known_at_once_and_an_embedded_one_later() -> None:
    outside = read_settings({"REDIS_URL": "redis://r/0"})
    assert (outside.journal_url, outside.embedded) == ("redis://r/0", False)
    assert read_settings({}).journal_url == ""


def test_a_password_in_a_url_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(read_settings({"REDIS_URL": "redis://:hunter2@r/0"}))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("::", "http://[::1]:80"),
    ],
)
def test_the_url_is_one_that_callers_on_this_machine_can_use(host: str, url: str) -> None:
    assert read_settings({}, host=host, port=80).url == url


class SetBack(Clock):
    """A clock whose wall time is given."""

    def __init__(self, *milliseconds: int) -> None:
        super().__init__()
        self._given = iter(milliseconds)

    def _wall_ms(self) -> int:
        return next(self._given)


def test_ids_ascend_also_within_a_millisecond_and_after_the_clock_was_set_back() -> None:
    clock = SetBack(1000, 1000, 1000, 400, 1001, 1001)
    ids = [clock.new_run_id() for _ in range(6)]
    assert ids == sorted(set(ids))


def test_more_ids_than_a_millisecond_has_sequence_numbers_still_ascend() -> None:
    clock = SetBack(*[1000] * 65_600)
    ids = [clock.new_run_id() for _ in range(65_600)]
    assert ids == sorted(set(ids))


def test_time_is_aware_and_utc_and_chance_is_a_share() -> None:
    clock = Clock()
    assert clock.now().utcoffset() == timedelta(0)
    assert all(0.0 <= clock.jitter() < 1.0 for _ in range(100))
    assert len(clock.token()) >= 43
    assert clock.token() != clock.token()

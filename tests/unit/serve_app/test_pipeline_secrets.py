"""No secret given to a pipeline is in any stored byte: not of the journal, not of what is told to those who look."""

from __future__ import annotations

import hashlib
import hmac
import logging
from pathlib import Path
from random import Random

import pytest

from actors.vault import Vault
from orchestrator.errors import Conflict, Invalid, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.pipeline_views import LogEntry
from serve_app.home import ensure_secret_key
from tests.pipeline_leaks import SECRETS, TOKEN, leak, spellings
from tests.pipelines_stage import BAD, KEY, TENANT, Stage, entry, on_stage, script
from tests.virtual_time import VirtualLoop, WorldClock


def test_no_secret_is_in_any_stored_byte(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def story(stage: Stage) -> None:
        job_id = await leak(stage)
        job = await stage.job(job_id)
        assert (job.status, job.retry_count) == ("Failed", 2)
        stored = stage.written()
        assert b"attempt 2 queued" in stored, "it is the whole journal"
        shown = repr(await stage.port.logs(TENANT, job_id)) + repr(job) + repr(await stage.port.pipelines(TENANT))
        for secret in SECRETS:
            for spelling in spellings(secret):
                assert spelling not in stored
                assert spelling.decode() not in shown
                assert spelling.decode() not in caplog.text

    on_stage(story)


def test_what_is_stored_of_a_body_cannot_be_tried_out_without_the_servers_key() -> None:
    async def story(stage: Stage) -> None:
        await leak(stage)
        stored = stage.written()
        guesses = [b"the body, secrets included", *(secret.encode() for secret in SECRETS)]
        for guess in guesses:
            for digest in (hashlib.sha256(guess), hmac.new(b"", guess, "sha256")):
                assert digest.hexdigest().encode() not in stored

    on_stage(story)


def test_short_secrets_are_hidden_where_they_are_declared() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create(script(inputs={"pin": {"secret": True}}))
        job = await stage.port.launch(TENANT, pipeline.id, {"pin": "7Q"}, None)
        assert job.parameters == {"pin": "***"}
        assert b"7Q" not in b"".join(batch.events for batch in stage.journal.runs[job.id].events).split(b'"sealed"')[0]
        assert (await stage.port.claim(TENANT, job.id, "r1", None)).parameters == {"pin": "7Q"}

    on_stage(story)


def test_under_another_key_nothing_is_claimed_and_nothing_is_stored_unmasked() -> None:
    async def story(stage: Stage) -> None:
        text = script(inputs={"token": {"secret": True}})
        job_id = await stage.launch(await stage.create(text), token=TOKEN)
        open_one = await stage.launch(await stage.create())
        stage.restart(secret_key="another key of 32 characters ---")
        for asked in (
            stage.port.claim(TENANT, job_id, "r1", None),
            stage.port.add_logs(TENANT, job_id, [entry(TOKEN)]),
            stage.port.complete(TENANT, job_id, BAD),
        ):
            with pytest.raises(Unavailable, match="secret key is another one"):
                await asked
        assert (await stage.job(job_id)).status == "Queued"
        await stage.port.claim(TENANT, open_one, "r1", None)

    on_stage(story)


def test_an_equal_key_with_another_secret_is_a_conflict() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create(script(inputs={"token": {"secret": True}}))
        await stage.port.launch(TENANT, pipeline.id, {"token": "one-secret"}, Idempotency("k", "fingerprint of one"))
        with pytest.raises(Conflict):
            await stage.port.launch(TENANT, pipeline.id, {"token": "another"}, Idempotency("k", "of another"))

    on_stage(story)


def test_log_lines_keep_all_but_the_secret() -> None:
    async def story(stage: Stage) -> None:
        text = script(inputs={"token": {"secret": True}})
        job_id = await stage.launch(await stage.create(text), token="hunter2000")
        line = LogEntry("2026-01-02T03:04:05.123456789Z", "Error", "a hunter2000 b")
        await stage.port.add_logs(TENANT, job_id, [line])
        assert await stage.port.logs(TENANT, job_id) == [LogEntry(line.timestamp, "Error", "a *** b")]

    on_stage(story)


# ── the vault and its key


def vault(key: str = KEY) -> Vault:
    return Vault(key, WorldClock(VirtualLoop(), Random(1)))


def test_what_is_sealed_is_read_under_the_same_key_about_the_same_thing_only() -> None:
    sealed = vault().seal(b"hunter2000", "job 1")
    assert vault().unseal(sealed, "job 1") == b"hunter2000"
    damaged = ("B" if sealed[-6] == "A" else "A").join([sealed[:-6], sealed[-5:]])
    for other, text, about in (
        (vault("x" * 32), sealed, "job 1"),
        (vault(), sealed, "job 2"),
        (vault(), damaged, "job 1"),
        (vault(), "no", "job 1"),
    ):
        with pytest.raises(Unavailable):
            other.unseal(text, about)


def test_equal_secrets_are_sealed_differently_and_have_equal_fingerprints() -> None:
    one = vault()
    assert one.seal(b"x", "a") != one.seal(b"x", "a")
    assert one.fingerprint("x") == vault().fingerprint("x") != vault("y" * 32).fingerprint("x")


def test_a_key_that_is_too_short_is_refused() -> None:
    with pytest.raises(Invalid, match="fewer than 16"):
        vault("short")


def test_the_servers_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    key = ensure_secret_key(tmp_path)
    assert len(key) >= 32
    assert ensure_secret_key(tmp_path) == key
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "secret.key").write_text("")
    with pytest.raises(Invalid, match="empty"):
        ensure_secret_key(tmp_path)

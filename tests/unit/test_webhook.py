"""Webhooks as values: what is told, when it is tried again, how it is signed, where it may go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator import job_events as e
from orchestrator import outside_codec, webhook
from orchestrator.errors import Conflict, Invalid
from orchestrator.job import Fault, revive
from orchestrator.webhook import DEAD, DELIVERED, PENDING, Delivery, Try, check_webhook_url
from tests.job_stories import AT, JobStory

URL = "https://callback.example/hook?k=1"


def a_job(webhook_url: str | None = URL) -> JobStory:
    story = JobStory()
    first = e.JobCreated(AT, "j1", "t", "flow", 1, webhook_url=webhook_url, client={"name": "ann"}, state="start")
    story.events, story.job = [first], revive([first], story.blueprint)
    return story.begin()


def a_delivery() -> Delivery:
    notice = webhook.of_job(a_job().to("finished").job)
    assert notice is not None
    return webhook.begin(notice, AT)


def failing(delivery: Delivery, times: int, attempts_max: int = 6) -> Delivery:
    for _ in range(times):
        assert delivery.next_at is not None
        delivery = webhook.tried(delivery, Try(delivery.next_at, status=500), attempts_max)
    return delivery


# ── notices ───────────────────────────────────────────────────────────────────────────────────────


def test_the_end_of_a_job_is_told_in_the_words_of_the_contract() -> None:
    notice = webhook.of_job(a_job().visit(None, x=1).job)
    assert notice is not None
    assert (notice.id, notice.client, notice.url, notice.event) == ("msg_j1", "ann", URL, "job_failed")
    assert json.loads(bytes(notice.payload)) == {
        "event": "job_failed",
        "job_id": "j1",
        "status": "failed",
        "result": {},
        "error": "State 'start' made no action",
    }
    assert outside_codec.decode_notice(outside_codec.encode_notice(notice)) == notice


@pytest.mark.parametrize("end", ["finished", "failed", "quarantined", "cancelled"])
def test_every_end_has_its_event(end: str) -> None:
    notice = webhook.of_job(a_job().to(end).job)
    assert notice is not None
    assert notice.event == f"job_{end}"


def test_an_engine_fault_is_told_as_a_failure() -> None:
    story = a_job()
    story.do(Fault("lost"))
    notice = webhook.of_job(story.job)
    assert notice is not None
    assert (notice.event, json.loads(bytes(notice.payload))["status"]) == ("job_failed", "error")


def test_nothing_is_told_of_a_job_that_goes_on_or_that_nobody_asked_about() -> None:
    assert webhook.of_job(a_job().job) is None
    assert webhook.of_job(a_job(None).to("finished").job) is None


# ── when ──────────────────────────────────────────────────────────────────────────────────────────


def test_attempts_follow_each_other_as_the_contract_says_and_then_it_is_dead() -> None:
    delivery, waits = a_delivery(), []
    for _ in range(5):
        before = delivery.next_at or AT
        delivery = failing(delivery, 1)
        waits.append(((delivery.next_at or AT) - before).total_seconds())
    assert waits == [2, 4, 30, 120, 600]
    dead = failing(delivery, 1)
    assert (dead.state, dead.attempts, len(dead.log)) == (DEAD, 6, 6)
    assert dead.ended_at == AT + timedelta(seconds=756)


def test_a_dead_letter_is_tried_four_times_an_hour_for_a_day() -> None:
    dead = failing(a_delivery(), 6)
    tries = 0
    while dead.next_at is not None:
        dead, tries = failing(dead, 1), tries + 1
    assert (dead.state, tries) == (DEAD, 96)
    assert len(dead.log) == webhook.LOG_MAX


def test_a_letter_that_is_dead_stays_so_when_more_attempts_are_allowed_later() -> None:
    assert failing(failing(a_delivery(), 6), 1, attempts_max=20).state == DEAD


def test_a_success_ends_it_whenever_it_comes() -> None:
    for times in (0, 3, 7):
        delivery = failing(a_delivery(), times)
        done = webhook.tried(delivery, Try(AT, status=204), 6)
        assert (done.state, done.next_at, done.attempts) == (DELIVERED, None, times + 1)


@pytest.mark.parametrize("attempt", [Try(AT, status=302), Try(AT, status=199), Try(AT, error="refused")])
def test_anything_but_2xx_is_a_failure(attempt: Try) -> None:
    assert webhook.tried(a_delivery(), attempt, 6).state == PENDING


def test_a_setting_may_allow_more_attempts_than_there_are_waits() -> None:
    delivery = failing(a_delivery(), 7, attempts_max=9)
    assert delivery.next_at is not None
    assert delivery.next_at - delivery.log[-1].at == timedelta(minutes=10)


def test_only_a_dead_letter_can_be_tried_again_from_the_start() -> None:
    fresh = webhook.again(failing(a_delivery(), 8), AT)
    assert (fresh.state, fresh.attempts, fresh.next_at, fresh.ended_at, len(fresh.log)) == (PENDING, 0, AT, None, 8)
    with pytest.raises(Conflict):
        webhook.again(fresh, AT)


def test_a_delivery_comes_back_from_its_record() -> None:
    for times in (0, 2, 7):
        delivery = failing(a_delivery(), times)
        assert outside_codec.decode_delivery(outside_codec.encode_delivery(delivery)) == delivery


# ── signatures ────────────────────────────────────────────────────────────────────────────────────


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # the example of the specification's reference implementations
    at = datetime.fromtimestamp(1614265330, UTC)
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    told = webhook.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', secret, at)
    assert told["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (told["webhook-id"], told["webhook-timestamp"]) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")


def test_a_raw_secret_is_its_own_key() -> None:
    told = webhook.headers("msg_1", b"{}", "raw secret", AT)
    signed = b"msg_1." + told["webhook-timestamp"].encode() + b".{}"
    digest = base64.b64encode(hmac.new(b"raw secret", signed, hashlib.sha256).digest()).decode()
    assert told["webhook-signature"] == f"v1,{digest}"


def test_without_a_secret_nothing_is_signed() -> None:
    assert webhook.headers("msg_1", b"{}", "", AT) == {"content-type": "application/json"}


def test_a_secret_that_is_no_base64_is_refused() -> None:
    with pytest.raises(Invalid):
        webhook.secret_key("whsec_%%%")


# ── where ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("url", [URL, "http://a", "HTTP://a.b:81/x", "https://8.8.8.8/", "http://[2606:4700::1111]:8/"])
def test_public_targets_are_taken(url: str) -> None:
    check_webhook_url(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "", "a.b/x", "ftp://a.b", "file:///etc/passwd", "http://", "http:///x", "https://u:p@a.b/", "https://u@a.b",
        "http://a b/", "http://a.b/\r\nX: y", "http://a.b:99999/", "http://[::1", "http://a.b\\@c.d", "x" * 3000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_is_no_plain_http_url_is_refused(url: str, allow_private: bool) -> None:
    with pytest.raises(Invalid, match=r"^Invalid webhook_url$"):
        check_webhook_url(url, allow_private)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[fe80::1%25eth0]", "[::ffff:10.0.0.1]", "0.0.0.0"]
)
def test_literal_private_targets_are_refused_unless_allowed(host: str) -> None:
    check_webhook_url(f"http://{host}/x", allow_private=True)
    with pytest.raises(Invalid):
        check_webhook_url(f"http://{host}/x", allow_private=False)

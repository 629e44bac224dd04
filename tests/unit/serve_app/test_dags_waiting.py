"""Signals, approvals and queries as the dags surface has them: what is read, who may, and how it is worded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from orchestrator.views import ApprovalView, PublishedView, VoteView, WaitView
from serve_app.auth import grant
from tests.fakes_gateway import FakeGateway
from tests.unit.serve_app.conftest import BASE, GRANTS, TOKENS, Connect

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VOTE = VoteView("ada", "yes", None, AT)
VOTE_JSON = {"by": "ada", "choice": "yes", "comment": None, "at": "2026-01-02T03:04:05.000Z"}


async def a_run(client: httpx.AsyncClient) -> str:
    await client.post("/dags", json={"dag_id": "d", "owner": "o", "tasks": [{"id": "ask"}]})
    return str((await client.post("/runs", json={"dag_id": "d"})).json()["run_id"])


async def test_a_signal_is_taken_with_and_without_a_body(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await a_run(admin)
    sent = await admin.post(f"/runs/{run_id}/signals/go", json={"data": {"n": 1}, "signal_id": "x"})
    assert sent.json() == {"run_id": run_id, "name": "go", "signal_id": "x", "state": "queued"}
    assert (await admin.post(f"/runs/{run_id}/signals/go")).json()["signal_id"] == "made-up"
    assert gateway.waiting.signals == [(run_id, "go", b'{"n":1}'), (run_id, "go", b"null")]


@pytest.mark.parametrize(
    ("body", "field"),
    [({"data": "x" * 70_000}, "data"), ({"signal_id": ""}, "signal_id"), ({"signal_id": 7}, "signal_id")],
)
async def test_a_signal_that_makes_no_sense_is_refused(admin: httpx.AsyncClient, body: Any, field: str) -> None:
    answer = await admin.post(f"/runs/{await a_run(admin)}/signals/go", json=body)
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (400, field)


async def test_a_signal_to_a_run_that_has_ended_is_a_conflict(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await a_run(admin)
    gateway.settle("default", run_id, state="succeeded")
    assert (await admin.post(f"/runs/{run_id}/signals/go")).status_code == 409
    assert (await admin.post("/runs/run_0/signals/go")).status_code == 404
    assert (await admin.post(f"/runs/{run_id}/signals/{'x' * 200}")).status_code == 404


async def test_a_vote_is_that_of_its_token(connect: Connect, gateway: FakeGateway) -> None:
    named = grant("a-token-that-is-long", "client", name="ada")
    admin = connect("admin", grants=(*GRANTS, named))
    admin.base_url = httpx.URL(f"http://localhost{BASE}")
    run_id = await a_run(admin)
    path = f"{BASE}/runs/{run_id}/tasks/ask/decision"
    ada = {"Authorization": "Bearer a-token-that-is-long"}
    client = connect(None)
    assert (await client.post(path, json={"choice": "yes", "comment": "fine"}, headers=ada)).status_code == 200
    assert (await client.post(path, json={"choice": "yes", "by": "ada"}, headers=ada)).status_code == 200
    assert (await client.post(path, json={"choice": "yes", "by": "bob"}, headers=ada)).status_code == 403
    for_bob = await admin.post(f"/runs/{run_id}/tasks/ask/decision", json={"choice": "no", "by": "bob", "attempt": 2})
    assert for_bob.json() == {"run_id": run_id, "task": "ask", "state": "done", "attempts": 0}
    first, _, third = gateway.waiting.ballots
    assert (first.by, first.roles, first.comment) == ("ada", ("ada", "client"), "fine")
    assert (third.by, third.roles, third.attempt) == ("bob", ("admin", "bob", "client", "worker"), 2)


async def test_tokens_without_a_name_are_different_voters(connect: Connect, gateway: FakeGateway) -> None:
    admin = connect("admin")
    admin.base_url = httpx.URL(f"http://localhost{BASE}")
    run_id = await a_run(admin)
    for who in ("admin", "client"):
        await connect(who).post(f"{BASE}/runs/{run_id}/tasks/ask/decision", json={"choice": "yes"})
    names = {ballot.by for ballot in gateway.waiting.ballots}
    assert len(names) == 2
    assert not [token for token in TOKENS.values() if any(token in name for name in names)]


@pytest.mark.parametrize(
    "body", [{}, {"choice": ""}, {"choice": "a", "comment": "x" * 1001}, {"choice": "a", "attempt": 0}]
)
async def test_a_vote_that_makes_no_sense_is_refused(admin: httpx.AsyncClient, body: Any) -> None:
    answer = await admin.post(f"/runs/{await a_run(admin)}/tasks/ask/decision", json=body)
    assert answer.status_code == 400


async def test_open_approvals_are_told(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    view = ApprovalView(
        run_id="run_1", dag_id="d", task="ask", attempt=1, asked_at=AT, expires_at=AT, prompt="Well?",
        choices=("yes", "no"), roles=("admin",), quorum=2, votes=(VOTE,),
    )  # fmt: skip
    gateway.waiting.open = [view, msgspec.structs.replace(view, dag_id="other")]
    [told] = (await admin.get("/approvals", params={"dag_id": "d"})).json()["items"]
    assert (told["task"], told["choices"], told["roles"], told["votes"]) == (
        "ask",
        ["yes", "no"],
        ["admin"],
        [VOTE_JSON],
    )


async def test_what_a_run_answers_is_told(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await a_run(admin)
    gateway.waiting.published["rows"] = PublishedView("rows", msgspec.Raw(b"[4]"), AT, "ask", 1)
    told = (await admin.get(f"/runs/{run_id}/query/rows")).json()
    assert told == {
        "run_id": run_id, "name": "rows", "value": [4], "task": "ask", "attempt": 1, "at": "2026-01-02T03:04:05.000Z",
    }  # fmt: skip
    assert (await admin.get(f"/runs/{run_id}/query")).json() == {"items": [told]}
    assert (await admin.get(f"/runs/{run_id}/query/none")).status_code == 404
    assert (await admin.get(f"/runs/{run_id}/query/a%20b")).status_code == 404


async def test_a_run_tells_what_its_tasks_wait_for(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await a_run(admin)
    assert "waiting_for" not in (await admin.get(f"/runs/{run_id}")).json()
    wait = WaitView("approval", 1, AT, AT, prompt="Well?", choices=("yes",), votes=(VOTE,))
    gateway.settle("default", run_id, state="running", tasks={"ask": "waiting"}, waiting_for={"ask": wait})
    run = (await admin.get(f"/runs/{run_id}")).json()
    assert run["tasks"] == {"ask": "running"}
    assert (run["waiting_for"]["ask"]["kind"], run["waiting_for"]["ask"]["votes"]) == ("approval", [VOTE_JSON])

"""What contracts/dags.md says about requests and answers beyond its examples, against a real server.

Definitions and preconditions, scopes and tenants, forms of errors, idempotency keys, batches, lists.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import httpx
import pytest

from tests.dags_api import Api, Json, answered, at_once, failing, fresh, fresh_noop, instant, refused, task
from tests.live import Server

pytestmark = pytest.mark.ray
BACKFILL = {"run_type": "backfill", "from": "2025-10-01", "to": "2025-10-04"}
DAYS = {"start": "2025-10-01", "end": "2025-10-04"}


def test_the_current_definition_is_read_back_as_it_was_written(api: Api) -> None:
    name = fresh("read_back")
    api.define(
        name,
        task("a"),
        task("b", "a", kind="core.sleep", params={"seconds": 1}, retries=2, retry_delay_s=0.5, timeout_s=9, priority=7),
        schedule="@daily",
        timezone="Europe/Berlin",
        max_active_runs=3,
        sla_s=60,
        description="words",
        tags=["x", "y"],
    )
    dag = answered(api.get(f"/dags/{name}"))
    assert (dag["owner"], dag["schedule"], dag["timezone"], dag["max_active_runs"]) == (
        "tests",
        "@daily",
        "Europe/Berlin",
        3,
    )
    assert (dag["sla_s"], dag["description"], dag["tags"]) == (60, "words", ["x", "y"])
    assert (dag["status"], dag["version"], dag["catchup"], dag["overlap"]) == ("active", 1, "none", "allow")
    assert (dag["tasks"][1]["depends_on"], dag["tasks"][1]["params"], dag["tasks"][1]["retries"]) == (
        ["a"],
        {"seconds": 1},
        2,
    )
    assert instant(dag["created_at"]) <= instant(dag["updated_at"])
    assert instant(dag["next_run_at"]) > datetime.now(UTC)


def test_a_definition_without_tasks_keeps_those_it_had_and_an_empty_list_clears_them(api: Api) -> None:
    name = fresh("keeps")
    api.define(name, task("a"))
    kept = answered(api.post("/dags", {"dag_id": name, "owner": "someone else"}))
    assert kept["version"] == 2
    assert [t["id"] for t in answered(api.get(f"/dags/{name}"))["tasks"]] == ["a"]
    api.define(name)
    assert answered(api.get(f"/dags/{name}"))["tasks"] == []
    run = api.wait(api.trigger(name)["run_id"])
    assert (run["state"], run["tasks"]) == ("success", {})


def test_if_match_is_a_precondition(api: Api) -> None:
    name = fresh("if_match")
    body = {"dag_id": name, "owner": "tests"}
    for absent in ('"1"', "*"):
        refused(api.post("/dags", body, If_Match=absent), 409, "version_conflict")
    api.define(name)
    for holds in ('"1"', "1", 'W/"1"', "*"):
        assert answered(api.post("/dags", body, If_Match=holds))["version"] == 1, holds
    refused(api.post("/dags", body, If_Match='"2"'), 409, "version_conflict")
    refused(api.post("/dags", body, If_Match="abc"), 400, "invalid_request")


def test_dags_are_listed_page_by_page_in_order_of_their_ids(api: Api) -> None:
    owner = fresh("owner")
    names = sorted(fresh("listed") for _ in range(5))
    for name in reversed(names):
        api.define(name, owner=owner)
    api.post(f"/dags/{names[1]}/pause")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        filters = {"owner": owner, "limit": 2, **({"cursor": cursor} if cursor else {})}
        page = answered(api.get("/dags", params=filters))
        assert len(page["items"]) <= 2
        seen += [dag["dag_id"] for dag in page["items"]]
        if not (cursor := page["next_cursor"]):
            break
    assert seen == names
    paused = answered(api.get("/dags", params={"owner": owner, "status": "paused"}))["items"]
    assert [dag["dag_id"] for dag in paused] == [names[1]]


def test_a_client_runs_what_the_operator_defined(live: Server, api: Api) -> None:
    client, name = live.api("client"), fresh("scopes")
    refused(client.post("/dags", {"dag_id": name, "owner": "tests"}), 403, "forbidden")
    api.define(name, task("a"))
    refused(client.post(f"/dags/{name}/pause"), 403, "forbidden")
    refused(client.post(f"/dags/{name}/resume"), 403, "forbidden")
    refused(client.post("/runs", {"dag_id": name, **BACKFILL}), 403, "forbidden")
    assert answered(client.post("/runs", {"dag_id": name, **BACKFILL, "dry_run": True}))["counts"]["create"] == 4
    assert client.wait(client.trigger(name)["run_id"])["state"] == "success"


def test_another_tenant_sees_nothing(live: Server, api: Api) -> None:
    other, name = live.api("other"), fresh("tenants")
    api.define(name, task("a"))
    run = api.trigger(name)["run_id"]
    refused(other.get(f"/dags/{name}"), 404, "not_found")
    refused(other.get(f"/runs/{run}"), 404, "not_found")
    refused(other.get(f"/runs/{run}/events"), 404, "not_found")
    refused(other.post(f"/runs/{run}/cancel"), 404, "not_found")
    refused(other.post("/runs", {"dag_id": name}), 404, "not_found")
    assert other.runs(dag_id=name) == []
    assert other.define(name, task("b"))["version"] == 1
    assert [t["id"] for t in answered(api.get(f"/dags/{name}"))["tasks"]] == ["a"]


def test_json_with_parameters_in_its_content_type_is_read(api: Api) -> None:
    content = f'{{"dag_id":"{fresh("charset")}","owner":"x"}}'.encode()
    response = api.http.post("/dags", content=content, headers={"content-type": "Application/JSON; charset=utf-8"})
    assert answered(response)["version"] == 1
    assert response.headers["content-type"] == "application/json; charset=utf-8"


def test_a_body_above_16_mib_is_refused(api: Api) -> None:
    content = b'{"dag_id":"x","owner":"' + b"y" * (16 << 20) + b'"}'
    refused(
        api.http.post("/dags", content=content, headers={"content-type": "application/json"}), 400, "invalid_request"
    )


def test_wrong_methods_and_unknown_paths_have_the_form_of_the_surface(api: Api) -> None:
    wrong = api.http.put("/dags", json={})
    refused(wrong, 405, "invalid_request")
    assert "POST" in wrong.headers["allow"]
    refused(api.http.delete("/runs/run_1"), 405, "invalid_request")
    refused(api.get("/nowhere"), 404, "not_found")


def test_a_get_is_never_refused_for_its_content_type_or_body(api: Api) -> None:
    name = fresh("get_body")
    api.define(name)
    for content_type in ("application/json", "text/plain", None):
        headers = {"content-type": content_type} if content_type else {}
        assert answered(api.http.request("GET", f"/dags/{name}", content=b"{}", headers=headers))["dag_id"] == name


def test_fifty_equal_posts_at_once_make_one_run(api: Api) -> None:
    name = fresh("fifty")
    api.define(name, task("a"))
    runs = at_once(50, lambda _: api.trigger(name, start="2025-10-01", end="2025-10-01")["run_id"])
    assert len(set(runs)) == 1
    backfills = at_once(50, lambda _: api.trigger(name, run_type="backfill", **DAYS)["run_id"])
    assert len(set(backfills)) == 1
    # three new windows: the first day had a run already
    assert len(api.runs(dag_id=name)) == 1 + 1 + 3


def test_a_client_may_plan_a_manual_run(live: Server, api: Api) -> None:
    name = fresh("manual_plan")
    api.define(name, task("a"))
    plan = answered(live.api("client").post("/runs", {"dag_id": name, "dry_run": True}))
    assert (plan["windows"], plan["counts"]["total"], plan["run_type"]) == ([], 1, "manual")
    assert api.runs(dag_id=name) == []


def test_a_request_id_belongs_to_one_path_and_one_tenant(live: Server, api: Api) -> None:
    name, key = fresh("scoped"), fresh("q2")
    dag = {"dag_id": name, "owner": "tests"}
    assert "idempotent-replay" not in api.post("/dags", dag, X_Request_Id=key).headers
    assert "idempotent-replay" not in live.api("other").post("/dags", dag, X_Request_Id=key).headers
    for _ in range(2):
        response = api.post("/runs", {"dag_id": name}, X_Request_Id=key)
        assert answered(response)["state"] in {"queued", "running", "success"}
    assert response.headers["idempotent-replay"] == "true"
    assert len(api.runs(dag_id=name)) == 1


def test_equal_requests_at_once_under_one_id_are_one_request(api: Api, plain: str) -> None:
    key = fresh("q3")
    bodies = at_once(20, lambda _: answered(api.post("/runs", {"dag_id": plain}, X_Request_Id=key)))
    assert len({body["run_id"] for body in bodies}) == 1


def test_a_refusal_is_not_remembered_and_a_bad_id_is_no_key(api: Api) -> None:
    name, key = fresh("later"), fresh("q4")
    refused(api.post("/runs", {"dag_id": name}, X_Request_Id=key), 404, "not_found")
    api.define(name)
    assert answered(api.post("/runs", {"dag_id": name}, X_Request_Id=key))["run_id"]
    bad = [api.post("/runs", {"dag_id": name}, X_Request_Id="no spaces allowed") for _ in range(2)]
    assert answered(bad[0])["run_id"] != answered(bad[1])["run_id"]
    assert all(response.headers["x-request-id"] != "no spaces allowed" for response in bad)


def test_a_batch_is_one_step_and_a_bad_entry_fails_alone(api: Api, plain: str) -> None:
    key = fresh("q5")
    body = {
        "runs": [
            {"dag_id": plain},
            {"dag_id": "nobody_defined_this"},
            {"dag_id": plain, "run_type": "nonsense"},
            {"dag_id": plain},
        ]
    }
    first = answered(api.post("/runs/batch", body, X_Request_Id=key))
    good, unknown, bad, last = first["runs"]
    assert unknown["error"] == "not_found"
    assert bad["error"] == "invalid_request"
    assert good["run_id"] != last["run_id"]
    again = api.post("/runs/batch", body, X_Request_Id=key)
    assert again.headers["idempotent-replay"] == "true"
    assert answered(again) == first
    assert api.wait(last["run_id"])["state"] == "success"
    malformed: tuple[Json, ...] = ({"runs": []}, {"runs": [{"dag_id": plain}] * 10_001}, {"runs": "x"}, {})
    for wrong in malformed:
        refused(api.post("/runs/batch", wrong), 400, "invalid_request")


def test_pages_do_not_repeat_while_new_runs_arrive(api: Api) -> None:
    name = fresh_noop(api)
    first = [api.trigger(name)["run_id"] for _ in range(5)]
    page = answered(api.get("/runs", params={"dag_id": name, "limit": 2}))
    seen = [run["run_id"] for run in page["items"]]
    while page["next_cursor"]:
        api.trigger(name)
        page = answered(api.get("/runs", params={"dag_id": name, "limit": 2, "cursor": page["next_cursor"]}))
        seen += [run["run_id"] for run in page["items"]]
    assert seen == first[::-1]


def test_lists_are_filtered(api: Api) -> None:
    name, run_id = failing(api)
    assert [run["run_id"] for run in api.runs(dag_id=name, state="failed")] == [run_id]
    assert api.runs(dag_id=name, state="success") == []
    assert [run["run_id"] for run in api.runs(dag_id=name, run_type="manual")] == [run_id]
    assert api.runs(dag_id=name, run_type="scheduled") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": 201},
        {"limit": "x"},
        {"cursor": "%%%"},
        {"state": "succeeded"},
        {"run_type": "sometimes"},
    ],
    ids=str,
)
def test_a_malformed_list_query_is_refused(api: Api, wrong: Json) -> None:
    refused(api.get("/runs", params=wrong), 400, "invalid_request")


def test_unknown_keys_are_ignored(api: Api) -> None:
    name = fresh("additive")
    assert api.define(name, {**task("a"), "colour": "red"}, nobody_knows_this=1)["version"] == 1
    assert api.wait(api.trigger(name, neither=True)["run_id"])["state"] == "success"


def test_every_answer_carries_a_request_id_and_the_limit(api: Api) -> None:
    for response in (api.get("/dags"), api.get("/dags/none"), api.post("/runs", {})):
        assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", response.headers["x-request-id"])
        assert int(response.headers["x-ratelimit-limit"]) > 0
        assert int(response.headers["x-ratelimit-remaining"]) >= 0
    assert api.http.get("/dags", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"


def test_health_readiness_metrics_and_documentation_are_open(live: Server, api: Api) -> None:
    name = fresh_noop(api)
    api.wait(api.trigger(name)["run_id"])
    with httpx.Client(base_url=live.url, timeout=20) as anyone:
        health = answered(anyone.get("/health"))
        assert (health["ok"], health["service"], health["status"], health["version"]) == (
            True,
            "orchestrator",
            "healthy",
            "1.0.0",
        )
        assert answered(anyone.get("/ready")) == {"ok": True}
        metrics = anyone.get("/metrics")
        assert metrics.status_code == 200
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert re.search(rf'^runs_total{{dag="{name}",state="success"}} 1(\.0)?$', metrics.text, re.MULTILINE)
        assert "http_request_duration_seconds_bucket" in metrics.text
        assert f'run_latency_seconds_count{{dag="{name}"}}' in metrics.text
        document = answered(anyone.get("/openapi.json"))
        assert (document["info"]["title"], document["info"]["version"]) == ("Orchestrator API", "1.0.0")
        assert "DagsRun" in document["components"]["schemas"]
        assert anyone.get("/docs").status_code == 200
        nowhere = anyone.get("/nowhere/at/all")
        assert (nowhere.status_code, nowhere.json()) == (404, {"error": "not found", "detail": "Not Found"})

"""Bundles over HTTP: who may send code, and how a bundle that is no good is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator import bundle
from tests.bundle_builders import files
from tests.dags_requests import is_error
from tests.fakes_gateway import FakeGateway
from tests.unit.serve_app.conftest import BASE, Connect

PACKED = bundle.pack(files())
NAME = bundle.id_of(PACKED)
PLACE = f"{BASE}/bundles/{NAME}"
ZIP = {"Content-Type": "application/octet-stream"}


async def test_a_bundle_is_sent_deployed_listed_and_pruned(connect: Connect, gateway: FakeGateway) -> None:
    admin = connect("admin")
    stored = {"bundle": NAME, "size_bytes": len(PACKED), "files": 3}
    assert (await admin.put(PLACE, content=PACKED, headers=ZIP)).json() == {**stored, "created": True}
    assert (await admin.put(PLACE, content=PACKED, headers=ZIP)).json() == {**stored, "created": False}
    deployed = await admin.post(f"{PLACE}/deploy", headers={"X-Request-Id": "d1"})
    assert deployed.json() == {"bundle": NAME, "items": [{"dag_id": "flow", "status": "active", "version": 1}]}
    again = await admin.post(f"{PLACE}/deploy", headers={"X-Request-Id": "d1"})
    assert (again.json(), again.headers["idempotent-replay"]) == (deployed.json(), "true")
    assert (await admin.get(f"{BASE}/dags/flow")).json()["bundle"] == NAME
    (item,) = (await admin.get(f"{BASE}/bundles")).json()["items"]
    assert (item["bundle"], item["dags"], item["current"]) == (NAME, ["flow"], [])
    assert (await admin.delete(f"{BASE}/bundles")).json() == {"items": [NAME]}
    await admin.delete(f"{BASE}/bundles?older_than_s=0")
    assert gateway.bundles.pruned == [timedelta(hours=1), timedelta()]
    is_error(await admin.delete(f"{BASE}/bundles?older_than_s=-1"), 400, "invalid_request")


async def test_code_over_http_is_off_unless_the_operator_allows_it(connect: Connect, gateway: FakeGateway) -> None:
    error = is_error(await connect("admin", allow_bundles=False).put(PLACE, content=PACKED), 403, "forbidden")
    assert "ORCHESTRATOR_ALLOW_BUNDLES" in error["message"]
    assert gateway.bundles.kept == {}


@pytest.mark.parametrize("who", ["client", "worker"])
async def test_code_needs_scope_admin(connect: Connect, who: str) -> None:
    is_error(await connect(who).put(PLACE, content=PACKED), 403, "forbidden")
    is_error(await connect(who).post(f"{PLACE}/deploy"), 403, "forbidden")
    is_error(await connect(who).delete(PLACE), 403, "forbidden")


async def test_to_other_tenants_exists_what_they_sent(connect: Connect) -> None:
    await connect("admin").put(PLACE, content=PACKED)
    other = connect("other")
    for refused in (await other.post(f"{PLACE}/deploy"), await other.delete(PLACE)):
        assert is_error(refused, 404, "not_found")["message"] == f"bundle {NAME} not found"
    assert (await other.get(f"{BASE}/bundles")).json() == {"items": []}
    assert (await other.delete(f"{BASE}/bundles")).json() == {"items": []}
    stored = (await other.put(PLACE, content=PACKED)).json()
    assert stored["created"], "whatever others have"
    (item,) = (await other.post(f"{PLACE}/deploy")).json()["items"]
    assert (item["dag_id"], item["version"]) == ("flow", 1)
    is_error(await connect("admin").get(f"{BASE}/dags/flow"), 404, "not_found")
    assert (await other.delete(PLACE)).json() == {"bundle": NAME, "deleted": True}
    assert len((await connect("admin").get(f"{BASE}/bundles")).json()["items"]) == 1


async def test_other_tenants_need_the_leave_for_the_deploy_too(connect: Connect, gateway: FakeGateway) -> None:
    gateway.bundles.kept["other", NAME] = gateway.bundles.kept["default", NAME] = files()
    error = is_error(await connect("other", allow_bundles=False).post(f"{PLACE}/deploy"), 403, "forbidden")
    assert "ORCHESTRATOR_ALLOW_BUNDLES" in error["message"]
    assert (await connect("admin").post(f"{PLACE}/deploy")).is_success, "the operator's lie in the data directory"


async def test_a_bundle_that_is_needed_is_not_deleted(connect: Connect, gateway: FakeGateway) -> None:
    admin = connect("admin")
    await admin.put(PLACE, content=PACKED)
    gateway.bundles.needed = "bundle 3f is in use"
    assert is_error(await admin.delete(PLACE), 409, "version_conflict")["message"] == "bundle 3f is in use"
    gateway.bundles.needed = ""
    assert (await admin.delete(PLACE)).json() == {"bundle": NAME, "deleted": True}
    is_error(await admin.delete(PLACE), 404, "not_found")


async def test_what_is_no_bundle_or_another_one_is_refused(connect: Connect) -> None:
    admin = connect("admin")
    is_error(await admin.put(PLACE, content=b"PK"), 400, "invalid_request")
    is_error(await admin.put(PLACE), 400, "invalid_request")
    is_error(await admin.put(f"{BASE}/bundles/{'0' * 64}", content=PACKED), 400, "invalid_request")
    is_error(await admin.put(f"{BASE}/bundles/nonsense", content=PACKED), 404, "not_found")
    is_error(await admin.put(PLACE, content=bytes(bundle.PACKED_MAX + 1)), 400, "invalid_request")
    is_error(await admin.post(f"{BASE}/bundles/{'1' * 64}/deploy"), 404, "not_found")


async def test_a_bundle_that_cannot_be_imported_tells_the_traceback(connect: Connect) -> None:
    admin = connect("admin")
    packed = bundle.pack({"broken": b""})
    place = f"{BASE}/bundles/{bundle.id_of(packed)}"
    await admin.put(place, content=packed)
    error = is_error(await admin.post(f"{place}/deploy"), 400, "invalid_request")
    assert error["message"] == "flow.py: ModuleNotFoundError: x"
    assert error["details"][1] == {"field": "traceback", "message": "line 1\nline 2"}

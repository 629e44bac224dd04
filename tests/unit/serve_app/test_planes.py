"""Control planes over HTTP: who is in charge, and that one that stands by is ready."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from orchestrator.errors import JournalUnavailable
from orchestrator.planes import Claim, Lease, PlaneView
from serve_app.plane_book import PlaneBook
from tests.dags_requests import is_error
from tests.fakes_gateway import FakeGateway
from tests.fakes_journal import MemoryJournal
from tests.fakes_planes import MemoryPlanes
from tests.unit.serve_app.conftest import Connect

ELSEWHERE = PlaneView("new", in_charge=False, lease=Lease("old", 3, 1_000, 11_000, 10_000, url="http://old:8000"))
PLANE = "/api/v1/runtime/orchestrator/plane"


async def test_the_plane_in_charge_says_so(admin: httpx.AsyncClient) -> None:
    told = (await admin.get("/plane")).json()
    assert (told["plane"], told["in_charge"], told["holder"], told["term"]) == ("here", True, "here", 1)
    assert told["since"] == "1970-01-01T00:00:01.000Z"
    assert (await admin.post("/plane/takeover")).json() == told


async def test_a_plane_that_stands_by_tells_who_is_in_charge_and_asks_for_the_lease(
    admin: httpx.AsyncClient, gateway: FakeGateway
) -> None:
    gateway.planes.seen = ELSEWHERE
    told = (await admin.get("/plane")).json()
    assert (told["in_charge"], told["holder"], told["holder_url"]) == (False, "old", "http://old:8000")
    assert told["wanted"] is None
    assert (await admin.post("/plane/takeover")).json()["wanted"] == "new"


async def test_a_plane_that_stands_by_is_ready(connect: Connect, gateway: FakeGateway) -> None:
    gateway.planes.seen = ELSEWHERE
    answer = await connect(None).get("/ready")
    assert answer.status_code == 200
    holder = {"plane": "old", "url": "http://old:8000"}
    assert answer.json() == {"ok": True, "standby": True, "in_charge": holder}
    gateway.planes.seen = msgspec.structs.replace(ELSEWHERE, lease=Lease(term=4))
    assert (await connect(None).get("/ready")).json()["in_charge"] is None


async def test_it_is_the_operators(connect: Connect) -> None:
    assert (await connect("client").get(PLANE)).status_code == 200
    is_error(await connect("client").post(f"{PLANE}/takeover"), 403, "forbidden")
    is_error(await connect("other").post(f"{PLANE}/takeover"), 404, "not_found")
    is_error(await connect("other").get(PLANE), 404, "not_found")


# ---------------------------------------------------------------- the book


class Control:
    """`ports.ControlPlane`, of which one method is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def take_over(self) -> None:
        self.asked += 1


def book(memory: MemoryJournal, plane: str, control: Any = None) -> PlaneBook:
    return PlaneBook(control or Control(), MemoryPlanes(memory, plane, lambda: 1_000), plane)


async def test_only_a_plane_that_is_not_in_charge_asks_its_supervisor_for_the_lease() -> None:
    memory = MemoryJournal()
    await MemoryPlanes(memory, "old", lambda: 1_000).claim_lease(Claim("old"))
    old, new = Control(), Control()
    assert (await book(memory, "old", old).take_over()).in_charge
    assert not (await book(memory, "new", new).take_over()).in_charge
    assert (old.asked, new.asked) == (0, 1)


async def test_a_journal_of_its_own_has_no_other_plane() -> None:
    alone = PlaneBook(Control())  # type: ignore[arg-type]  # one method is asked
    assert (await alone.view()).in_charge
    assert await alone.standby() is None


async def test_nobody_stands_by_as_long_as_the_journal_does_not_tell() -> None:
    class Away(MemoryPlanes):
        async def lease(self) -> Lease:
            raise JournalUnavailable("away")

    away = Away(MemoryJournal(), "new", lambda: 1_000)
    assert await PlaneBook(Control(), away, "new").standby() is None  # type: ignore[arg-type]  # a part of it will do

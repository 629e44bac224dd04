"""Control planes over HTTP: who is in charge, and that one that stands by is ready."""

from __future__ import annotations

import json
import pickle
from typing import Any

import httpx
import msgspec
import pytest

from actors.clock import Clock
from orchestrator import planes
from orchestrator.client import dags
from orchestrator.client.errors import ServerUnreachable
from orchestrator.client.script import Answer, Call, Mint, Script
from orchestrator.command import Command
from orchestrator.errors import ActorUnreachable, JournalUnavailable, NotInCharge, Unavailable
from orchestrator.planes import Claim, Lease, PlaneView
from serve_app import plane_figures
from serve_app.asking import ask
from serve_app.gateway import Gateway
from serve_app.health import exposition
from serve_app.plane_book import PlaneBook, told_by
from serve_app.problems import problem_of
from serve_app.surfaces.instances import words as instances_words
from serve_app.surfaces.jobs import words as jobs_words
from serve_app.surfaces.pipelines import words as pipelines_words
from serve_app.surfaces.runs import words as runs_words
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


# ---------------------------------------------------------------- nobody in charge


def test_the_age_of_a_lease_is_since_it_was_renewed_or_since_nobody_has_it() -> None:
    held = planes.claim(Lease(), Claim("a"), 1_000)
    assert planes.age_ms(held, 3_500) == 2_500
    assert planes.age_ms(planes.claim(held, Claim("a"), 4_000), 4_500) == 500
    assert planes.age_ms(planes.claim(held, Claim("b"), 4_000), 6_000) == 5_000, "another one asked in vain"
    assert planes.age_ms(planes.release(held, "a", 7_000), 9_000) == 2_000
    assert planes.age_ms(planes.release(planes.claim(held, Claim("b", wants=True), 6_000), "a", 7_000), 9_000) == 2_000
    assert planes.age_ms(Lease(), 9_000) is None, "nobody ever was in charge"
    assert planes.age_ms(planes.claim(Lease(), Claim("a", span_ms=0), 1_000), 9_000) is None, "it is for ever"
    assert planes.age_ms(held, 500) == 0, "the clock was set back"


async def test_both_planes_tell_how_old_the_lease_is_and_which_of_them_has_it() -> None:
    memory, clock = MemoryJournal(), [1_000]

    def told(plane: str) -> PlaneBook:
        return PlaneBook(Control(), MemoryPlanes(memory, plane, lambda: clock[0]), plane)  # type: ignore[arg-type]

    await MemoryPlanes(memory, "old", lambda: 1_000).claim_lease(Claim("old"))
    clock[0] = 41_000
    shown = [exposition(plane_figures.families(await told(plane).view())).decode() for plane in ("old", "new")]
    assert all("orchestrator_plane_lease_age_seconds 40.0" in text for text in shown)
    assert ["orchestrator_plane_in_charge 1.0" in text for text in shown] == [True, False]
    assert "orchestrator_plane_in_charge 0.0" in shown[1]


async def test_where_no_other_plane_can_be_there_is_no_age_and_without_an_answer_nothing_is_told() -> None:
    alone = PlaneBook(Control())  # type: ignore[arg-type]  # one method is asked
    text = exposition(plane_figures.families(await alone.view())).decode()
    assert "orchestrator_plane_in_charge 1.0" in text
    assert "age" not in text
    assert list(plane_figures.families(None)) == []


async def test_the_metrics_of_a_gateway_tell_of_its_plane() -> None:
    memory = MemoryJournal()
    gateway = Gateway(memory, Silent(), Clock(), planes=book(memory, "new"))  # type: ignore[arg-type]
    names = {family.name for family in await gateway.metrics()}
    assert "orchestrator_plane_in_charge" in names


# ---------------------------------------------------------------- what only the plane in charge can answer


class Silent:
    """`ports.ControlPlane` without actors."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error or ActorUnreachable("run-actor-0", "no such actor")

    def __getattr__(self, _: str) -> Any:
        async def fails(*_: Any, **__: Any) -> None:
            raise self.error

        return fails


@pytest.mark.parametrize("error", [ActorUnreachable("scheduler", "no such actor"), Unavailable("stands by")])
async def test_a_plane_that_stands_by_says_at_once_who_can_be_asked(error: Exception) -> None:
    memory = MemoryJournal()
    await MemoryPlanes(memory, "old", lambda: 1_000).claim_lease(Claim("old", url="http://old:8000"))
    control = told_by(Silent(error), book(memory, "new"))  # type: ignore[arg-type]  # whatever it is asked fails
    with pytest.raises(NotInCharge) as told:
        await ask(memory, control, "run-actor-0", Command(kind="cancel", run_id="r"))  # type: ignore[arg-type]
    assert (told.value.holder, told.value.url) == ("old", "http://old:8000")
    assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)


async def test_while_nobody_is_in_charge_that_is_what_is_said() -> None:
    control = told_by(Silent(), book(MemoryJournal(), "new"))  # type: ignore[arg-type]  # as above
    with pytest.raises(NotInCharge, match="nobody is in charge yet"):
        await control.workers()


async def test_in_charge_or_without_the_journal_the_error_stays_what_it_was() -> None:
    memory = MemoryJournal()
    await MemoryPlanes(memory, "new", lambda: 1_000).claim_lease(Claim("new"))
    with pytest.raises(ActorUnreachable):
        await told_by(Silent(), book(memory, "new")).workers()  # type: ignore[arg-type]  # as above
    with pytest.raises(JournalUnavailable):
        await told_by(Silent(JournalUnavailable("away")), book(memory, "other")).workers()  # type: ignore[arg-type]


async def test_who_is_in_charge_is_not_read_for_every_failure() -> None:
    class Counting(MemoryPlanes):
        reads = 0

        async def lease(self) -> Lease:
            self.reads += 1
            return await super().lease()

    counting = Counting(MemoryJournal(), "new", lambda: 1_000)
    control = told_by(Silent(), PlaneBook(Control(), counting, "new"))  # type: ignore[arg-type]  # as above
    for _ in range(20):
        with pytest.raises(NotInCharge):
            await control.workers()
    assert counting.reads == 1


SAYS = "this control plane stands by: http://old:8000 is in charge"


async def test_the_answer_of_the_dags_surface_names_the_plane_in_charge(
    admin: httpx.AsyncClient, gateway: FakeGateway
) -> None:
    gateway.broken = NotInCharge("old", "http://old:8000")
    answer = await admin.post("/runs/run_1/cancel")
    is_error(answer, 503, "dependency_down")
    assert answer.json()["message"] == SAYS
    assert (answer.headers["Retry-After"], answer.headers["X-In-Charge"]) == ("1", "http://old:8000")


def test_every_surface_names_it_in_its_own_form() -> None:
    error = NotInCharge("old", "http://old:8000")
    problem = problem_of(error)
    assert dict(problem.headers) == {"Retry-After": "1", "X-In-Charge": "http://old:8000"}
    assert dict(problem_of(NotInCharge("old", "")).headers) == {"Retry-After": "1"}
    assert runs_words.problem(problem, error) == {"error": "dependency down", "details": [SAYS]}
    assert instances_words.detail(error, problem, {}) == f"Service Unavailable: {SAYS}"
    assert jobs_words.problem(problem, error) == f"Service unavailable: {SAYS}"
    assert pipelines_words.error(error, problem) == f"Service unavailable: {SAYS}"


def test_a_client_that_was_patient_tells_what_the_server_said() -> None:
    headers = {"retry-after": "1", "x-in-charge": "http://old:8000"}
    body = json.dumps({"error": "dependency_down", "message": SAYS}).encode()
    answer = Answer("http://new:8000", 503, headers, body)

    def told(script: Script[Any]) -> None:
        reply: Any = None
        while True:
            effect = script.send(reply)
            reply = answer if isinstance(effect, Call) else "key" if isinstance(effect, Mint) else None

    with pytest.raises(ServerUnreachable, match=f"no answer from http://new:8000: .*{SAYS}"):
        told(dags.cancel("run_1"))

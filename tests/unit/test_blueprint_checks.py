"""What every blueprint must hold, and what a set of them must not share."""

from __future__ import annotations

import pytest

from orchestrator.blueprint import Blueprint, State, SubBlueprint, Transition
from orchestrator.blueprint_checks import check, check_together
from orchestrator.errors import Invalid
from tests.blueprint_builders import a_machine, leading


def test_a_machine_whose_states_are_all_reached_passes() -> None:
    assert check(a_machine(leading("a", "b", start=True), leading("b", "a", "finished"))) == ()


def test_one_state_must_be_the_start() -> None:
    with pytest.raises(Invalid, match="none is the start"):
        check(a_machine(leading("a")))
    with pytest.raises(Invalid, match="only one can be the start, not 'a' and 'b'"):
        check(a_machine(leading("a", "b", start=True), leading("b", start=True)))


def test_every_target_must_exist() -> None:
    with pytest.raises(Invalid, match="states/a: leads to the unknown state 'nowhere'"):
        check(a_machine(leading("a", "nowhere", start=True)))


@pytest.mark.parametrize("end", ["finished", "failed", "cancelled", "quarantined"])
def test_the_implicit_ends_exist(end: str) -> None:
    assert check(a_machine(leading("a", end, start=True))) == ()


def test_every_state_must_be_reached() -> None:
    with pytest.raises(Invalid, match="states/b: is never reached") as caught:
        check(a_machine(leading("a", "finished", start=True), leading("b", "c"), leading("c", "b")))
    assert [path for path, _ in caught.value.details] == ["states/b", "states/c"]


def test_an_implicit_end_that_is_declared_need_not_be_led_to() -> None:
    assert check(a_machine(leading("a", "finished", start=True), State("failed", end=True, code=True))) == ()


def test_a_state_that_code_may_lead_to_is_only_warned_about() -> None:
    (warning,) = check(a_machine(leading("a", start=True, dynamic=True), leading("b")))
    assert warning == "state 'b' is reached only if the code of 'a' leads there"


def test_code_that_is_not_reached_itself_excuses_nothing() -> None:
    with pytest.raises(Invalid, match="never reached"):
        check(a_machine(leading("a", "finished", start=True), leading("b", dynamic=True), leading("c")))


def test_an_end_cannot_act() -> None:
    with pytest.raises(Invalid, match="states/done: is an end: it cannot act"):
        check(a_machine(leading("a", "done", start=True), leading("done", "a", end=True)))


def mounted(endpoint: str | None, version: str | None = "v1") -> Blueprint:
    return a_machine(leading("a", start=True), api_endpoint=endpoint, api_version=version)


@pytest.mark.parametrize(
    ("endpoint", "version", "path"),
    [
        ("/jobs/simple_flow", "v1", "/api/v1/jobs/simple_flow"),
        ("/jobs/a/b", "v1", "/api/v1/jobs/a/b"),
        ("/flow", None, "/api/flow"),
        ("/v2/flow", None, "/api/v2/flow"),
        ("/workersmith", "v1", "/api/v1/workersmith"),
        ("/jobs/cancel", "v1", "/api/v1/jobs/cancel"),
    ],
)
def test_a_free_path_is_taken(endpoint: str, version: str | None, path: str) -> None:
    assert check(mounted(endpoint, version)) == ()
    assert mounted(endpoint, version).path == path


@pytest.mark.parametrize(
    ("endpoint", "version"),
    [
        ("/jobs", "v1"),
        ("/workers", "v1"),
        ("/dashboard", "v7"),
        ("/jobs/x/cancel", "v1"),
        ("/jobs/x/history", "v1"),
        ("/blueprints", "v1"),
        ("/blueprints/x/graph", "v1"),
        ("/workers/x", "v1"),
        ("/admin/reload-workers", "v1"),
        ("/runtime/orchestrator/runs", "v1"),
        ("/v1/workers", None),
        *(
            (f"/{first}", None)
            for first in ("orchestrators", "plans", "pipeline", "runners", "jobs", "stubs", "health")
        ),
        ("/x/y", "jobs"),
        ("/jobs/x", None),
    ],
)
def test_a_reserved_path_is_refused(endpoint: str, version: str | None) -> None:
    with pytest.raises(Invalid, match=r"api_endpoint: /api/.* is reserved"):
        check(mounted(endpoint, version))


@pytest.mark.parametrize("endpoint", ["jobs/x", "/", "/jobs/x/", "/a//b", "/a b", "/{job_id}", "/a/../b", "/é", ""])
def test_an_endpoint_is_plain_segments(endpoint: str) -> None:
    with pytest.raises(Invalid, match="api_endpoint: must be segments"):
        check(mounted(endpoint))


def test_a_version_is_one_segment_of_an_endpoint() -> None:
    with pytest.raises(Invalid, match="api_version: must match"):
        check(mounted("/x", "v1/v2"))
    with pytest.raises(Invalid, match="api_version: must match"):
        check(mounted("/x", ".."))
    with pytest.raises(Invalid, match="api_version: needs an api_endpoint"):
        check(mounted(None, "v1"))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129])
def test_a_blueprint_has_a_plain_name(name: str) -> None:
    with pytest.raises(Invalid, match="name: must match"):
        check(a_machine(leading("a", start=True), name=name))


def test_two_blueprints_share_neither_name_nor_path() -> None:
    one = a_machine(leading("a", start=True), name="one", api_endpoint="/x", api_version="v1")
    with pytest.raises(Invalid, match="two blueprints are called 'one'"):
        check_together([one, one])
    other = a_machine(leading("a", start=True), name="other", api_endpoint="/v1/x")
    with pytest.raises(Invalid, match="'one' and 'other' are both mounted at /api/v1/x"):
        check_together([one, other])


def test_blueprints_without_a_path_share_none() -> None:
    check_together([a_machine(leading("a", start=True), name=name) for name in ("one", "two")])


def test_a_sub_blueprint_that_is_named_must_exist() -> None:
    state = State("a", start=True, action=SubBlueprint("child", {}, {"success": "finished"}))
    with pytest.raises(Invalid, match="blueprint 'b': states/a/run_blueprint: unknown blueprint 'child'"):
        check_together([a_machine(state)])
    child = a_machine(State("s", start=True, action=Transition("finished")), name="child")
    check_together([a_machine(state), child])

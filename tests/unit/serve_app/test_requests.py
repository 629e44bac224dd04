"""Request ids, idempotency keys, bodies and fields."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import orjson
import pytest
from starlette.datastructures import Headers
from starlette.requests import Request

from orchestrator.errors import Invalid
from serve_app.problems import BodyTooLarge
from serve_app.requests import (
    FRESH_ID_HEADER,
    IDENTITY_KEY,
    Fields,
    Identity,
    idempotency,
    identity,
    json_body,
    optional_json_body,
    unhindered,
)


def request_of(
    body: bytes, content_type: str | None = "application/json", *, chunk: int = 1 << 20, **scope: Any
) -> Request:
    """A request whose body arrives in chunks."""
    parts = [body[at : at + chunk] for at in range(0, len(body), chunk)] or [b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    default = {"type": "http", "method": "POST", "path": "/runs", "query_string": b"", "headers": headers}
    return Request({**default, **scope}, receive)


@pytest.mark.parametrize("given", ["r-1", "a" * 128, "A.b_c:d-9"])
def test_an_id_of_the_right_form_is_the_callers(given: str) -> None:
    assert identity(Headers({"x-request-id": given}), lambda: "fresh") == Identity(given, True)


@pytest.mark.parametrize("given", [None, "", "a" * 129, "a b", "ä", "a\n", "a/b"])
def test_any_other_id_is_replaced_and_is_no_key(given: str | None) -> None:
    headers = Headers(raw=[] if given is None else [(b"x-request-id", given.encode("latin-1"))])
    assert identity(headers, lambda: "fresh") == Identity("fresh", False)


def test_an_id_that_the_edge_made_up_is_no_key() -> None:
    headers = Headers({"x-request-id": "r-1", FRESH_ID_HEADER: "1"})
    assert identity(headers, lambda: "fresh") == Identity("r-1", False)


def key_of(body: object, *, tenant: str = "t", chosen: bool = True, path: str = "/runs", rid: str = "r-1") -> Any:
    request = request_of(b"", path=path, server=("h", 80), scheme="http")
    request.scope[IDENTITY_KEY] = Identity(rid, chosen)
    return idempotency(request, tenant, body)


def test_a_key_is_scoped_by_tenant_method_path_and_id() -> None:
    keys = {key_of({}).key, key_of({}, tenant="u").key, key_of({}, path="/dags").key, key_of({}, rid="r-2").key}
    assert len(keys) == 4
    assert key_of({}, chosen=False) is None


def test_bodies_compare_as_parsed_json() -> None:
    one = key_of(orjson.loads(b'{"a": 1, "b": {"c": [1, 2]}}'))
    same = key_of(orjson.loads(b'{"b":{"c":[1,2]},"a":1}'))
    other = key_of(orjson.loads(b'{"b":{"c":[2,1]},"a":1}'))
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_is_read_under_its_content_type(content_type: str) -> None:
    assert await json_body(request_of(b'{"a":1}', content_type), 100) == {"a": 1}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", "text/plain"), (b"{}", None), (b"{}", "application/jsonp"), (b"{", "application/json"),
        (b"", "application/json"), (b"NaN", "application/json"), (b'"\\ud800"', "application/json"),
        (b"\xff", "application/json"), (b"\xef\xbb\xbf{}", "application/json"), (b"[" * 2000, "application/json"),
        (b"[" * 150 + b"]" * 150, "application/json"), (b'{"a":' * 150 + b"1" + b"}" * 150, "application/json"),
    ],
)  # fmt: skip
async def test_what_is_no_json_is_invalid(body: bytes, content_type: str | None) -> None:
    with pytest.raises(Invalid):
        await json_body(request_of(body, content_type), 10_000)


async def test_wide_json_is_not_deep() -> None:
    wide = b"[" + b",".join([b"[]"] * 500) + b"]"
    assert len(await json_body(request_of(wide), 10_000)) == 500  # type: ignore[arg-type]  # a part of it will do


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_above_the_limit_is_refused(announced: bool) -> None:
    headers = [(b"content-type", b"application/json"), *([(b"content-length", b"101")] if announced else [])]
    with pytest.raises(BodyTooLarge):
        await json_body(request_of(b" " * 101, chunk=10, headers=headers), 100)
    assert await json_body(request_of(b" " * 98 + b"{}", chunk=10), 100) == {}


async def test_an_optional_body_may_be_missing_but_not_wrong() -> None:
    assert await optional_json_body(request_of(b"", None), 100) == {}
    assert await optional_json_body(request_of(b"{}"), 100) == {}
    for body, content_type in ((b"{}", "text/plain"), (b"[]", "application/json"), (b"{", "application/json")):
        with pytest.raises(Invalid):
            await optional_json_body(request_of(body, content_type), 100)


def test_fields_name_everything_that_is_wrong() -> None:
    fields = Fields({"a": 1, "b": True, "c": "x", "d": "no", "e": [], "f": "\0"})
    values = (
        fields.text("a"),
        fields.whole("b", 0, 9),
        fields.choice("c", ("y",), "y"),
        fields.flag("d"),
        fields.mapping("e"),
        fields.text("f"),
        fields.text("g", required=True),
    )
    assert values == (None, None, "y", False, {}, None, None)
    with pytest.raises(Invalid) as refused:
        fields.check()
    assert [field for field, _ in refused.value.details] == ["a", "b", "c", "d", "e", "f", "g"]


def test_fields_read_what_is_right_and_null_counts_as_absent() -> None:
    fields = Fields({"a": "x", "b": 3.0, "c": True, "d": {"k": 1}, "n": None})
    assert (fields.text("a"), fields.whole("b", 1, 3), fields.flag("c"), fields.mapping("d")) == (
        "x",
        3,
        True,
        {"k": 1},
    )
    assert (fields.text("n"), fields.whole("n", 0, 1), fields.flag("n"), fields.mapping("n")) == (None, None, False, {})
    assert fields.choice("n", ("y",), "y") == "y"
    fields.check()


@pytest.mark.parametrize("params", [{"a": "\0"}, {"\0": 1}, {"a": 2**64 - 1}, {"a": {"b": ["\0"]}}])
def test_params_that_a_journal_could_not_keep_are_invalid(params: dict[str, Any]) -> None:
    fields = Fields({"params": params})
    fields.mapping("params")
    with pytest.raises(Invalid):
        fields.check()


async def test_a_mutation_outlives_its_caller_and_runs_in_an_empty_context() -> None:
    marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker", default="none")
    marker.set("request")
    may_end, seen = asyncio.Event(), []

    async def mutate() -> None:
        await may_end.wait()
        seen.append(marker.get())

    caller = asyncio.create_task(unhindered(mutate()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    may_end.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert seen == ["none"]

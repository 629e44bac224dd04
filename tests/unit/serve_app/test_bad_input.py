"""Bad input to endpoints of the operator: whatever is sent, the answer is a refusal in the surface's own form.

The gateway is the real one over a journal in memory, with a supervisor that starts nothing, so that what handlers let
through meets the code that it would meet in a cluster. `tests/conformance/test_openapi_fuzz.py` generates what no table
has; there all that is behind the handlers is a fake.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from actors.clock import Clock
from actors.settings import Settings
from actors.supervisor import Supervisor
from orchestrator import bundle
from serve_app.app import build_app
from serve_app.auth import Tokens
from serve_app.gateway import Gateway
from serve_app.options import ServerOptions
from tests.bundle_builders import files
from tests.dags_requests import is_error
from tests.fakes_journal import MemoryJournal
from tests.gateway_stage import Stage
from tests.supervisor_stage import FakeStage, NoPeers
from tests.unit.serve_app.conftest import BASE, GRANTS, TOKENS, UNLIMITED

HUGE = "9" * 400
NAME = bundle.id_of(bundle.pack(files()))

#: none of them is JSON that a request may have, whatever the endpoint
NO_JSON = (
    b"{",
    b"[1,]",
    b"\xff\xfe",
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": "\\ud800"}',
    b"[" * 5000,
    b'{"a":' * 200 + b"1" + b"}" * 200,
)
#: JSON, and no object
NO_OBJECT = (b"null", b"[]", b'"text"', b"1", b"true", HUGE.encode())

SHARES = (
    b"{}",
    b'{"tenant": "acme"}',
    b'{"weight": 2}',
    b'{"tenant": "", "weight": 2}',
    b'{"tenant": 7, "weight": 2}',
    b'{"tenant": "a\\u0000b", "weight": 2}',
    b'{"tenant": "acme", "weight": 0}',
    b'{"tenant": "acme", "weight": -1}',
    b'{"tenant": "acme", "weight": 1.5}',
    b'{"tenant": "acme", "weight": "2"}',
    b'{"tenant": "acme", "weight": true}',
    b'{"tenant": "acme", "weight": %s}' % HUGE.encode(),
    b'{"tenant": "acme", "weight": 1e400}',
    b'{"tenant": "%s", "weight": 2}' % (b"a" * 101),
)
SWEEPS = (
    b"{}",
    b'{"older_than_s": null}',
    b'{"older_than_s": -1}',
    b'{"older_than_s": 0.5}',
    b'{"older_than_s": "30d"}',
    b'{"older_than_s": %s}' % HUGE.encode(),
    b'{"older_than_s": 1e300}',
    b'{"older_than_s": 0, "to": 7}',
    b'{"older_than_s": 0, "to": ""}',
    b'{"older_than_s": 0, "to": "relative/folder"}',
    b'{"older_than_s": 0, "to": "/tmp/a b"}',
    b'{"older_than_s": 0, "to": "/tmp/a\\n"}',
    b'{"older_than_s": 0, "to": "/tmp/a\\u0000"}',
    b'{"older_than_s": 0, "to": "nonsense://bucket/x"}',
    b'{"older_than_s": 0, "to": "github://without-more"}',
    b'{"older_than_s": 0, "to": "/%s"}' % (b"a" * 1000),
)
POOLS = (
    b"{}",
    b'{"max": -1}',
    b'{"max": 513}',
    b'{"max": 1.5}',
    b'{"max": "4"}',
    b'{"max": true}',
    b'{"max": %s}' % HUGE.encode(),
    b'{"max": 1, "min": 2}',
    b'{"max": 1, "num_cpus": -1}',
    b'{"max": 1, "num_cpus": 1.5}',
    b'{"max": 1, "num_cpus": "1"}',
    b'{"max": 1, "num_gpus": 1e400}',
    b'{"max": 1, "num_gpus": %s}' % HUGE.encode(),
    b'{"max": 1, "memory_bytes": -1}',
    b'{"max": 1, "idle_timeout_s": 1e300}',
    b'{"max": 1, "tasks_per_worker": 0}',
    b'{"max": 1, "step": 0}',
    b'{"max": 1, "resources": []}',
    b'{"max": 1, "resources": {"CPU": 1}}',
    b'{"max": 1, "resources": {"a b": 1}}',
    b'{"max": 1, "resources": {"tpu\\n": 1}}',
    b'{"max": 1, "resources": {"tpu": null}}',
    b'{"max": 1, "resources": {"tpu": {}}}',
    b'{"max": 1, "labels": {"tier": 1}}',
    b'{"max": 1, "labels": {"tier\\n": "a"}}',
    b'{"max": 1, "labels": {"tier": "a\\n"}}',
    b'{"max": 1, "labels": {"tier": "in()"}}',
    b'{"max": 1, "labels": {"\\u0000": "a"}}',
)
#: (method, path, what is wrong as its body)
BODIES = (
    ("POST", "/shares", NO_JSON + NO_OBJECT + SHARES),
    ("POST", "/archive", NO_JSON + NO_OBJECT + SWEEPS),
    ("PUT", "/pools/gpu", NO_JSON + NO_OBJECT + POOLS),
    ("PUT", f"/bundles/{NAME}", (b"", b"PK", b"PK\x03\x04" + bytes(64), b"PK\x05\x06" + bytes(18), b"\0" * 4096)),
    ("POST", f"/bundles/{NAME}/deploy", NO_JSON + NO_OBJECT),
    ("POST", "/plane/takeover", NO_JSON + NO_OBJECT),
)
#: names that are none: 404, like every name that nothing has
NAMES = ("a%00b", "%ff", "a%20b", "%2e%2e", "a" * 300, "%F0%9F%A6%86", "%0A", "*", "a%0a")
QUERIES = (
    "/bundles?older_than_s=-1",
    "/bundles?older_than_s=",
    "/bundles?older_than_s=1.5",
    "/bundles?older_than_s=NaN",
    f"/bundles?older_than_s={HUGE}",
    "/bundles?older_than_s=%D9%A1",
    "/runs?archived=",
    "/runs?archived=1",
    "/runs?archived=true&cursor=x",
    "/runs?archived=true&cursor=cnVuXzEKMjM",
    "/runs?archived=true&cursor=%00",
    f"/runs?archived=true&cursor={'A' * 600}",
    "/runs?archived=true&limit=0",
    f"/runs?archived=true&limit={HUGE}",
    "/runs?archived=true&state=x",
)


class Supervised(Stage):
    """A control plane whose pools are those of a supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__()
        self._supervisor = supervisor

    async def weights_changed(self) -> None:
        pass

    async def pools(self) -> bytes:
        return await self._supervisor.pools(b"")

    async def set_pool(self, change: bytes) -> bytes:
        return await self._supervisor.set_pool(change)


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    journal, settings = MemoryJournal(), Settings(home=str(tmp_path), workers=1)
    control = Supervised(Supervisor(FakeStage(), NoPeers(), journal, settings))
    gateway = Gateway(journal, control, Clock(), settings=settings)
    app = build_app(gateway, Tokens(GRANTS), ServerOptions(home=str(tmp_path), **UNLIMITED), Clock())
    headers = {"Authorization": f"Bearer {TOKENS['admin']}", "Content-Type": "application/json"}
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        yield client


@pytest.mark.parametrize(("method", "path", "bodies"), BODIES, ids=lambda each: each if isinstance(each, str) else "")
async def test_a_bad_body_is_400(
    operator: httpx.AsyncClient, method: str, path: str, bodies: tuple[bytes, ...]
) -> None:
    answers = {body[:80]: await operator.request(method, BASE + path, content=body) for body in bodies}
    assert {body: answer.text for body, answer in answers.items() if answer.status_code != 400} == {}
    for answer in answers.values():
        is_error(answer, 400, "invalid_request")
    assert (await operator.get(f"{BASE}/shares")).json() == {"items": []}
    assert (await operator.get(f"{BASE}/archive")).json() == {"items": []}
    assert (await operator.get(f"{BASE}/bundles")).json() == {"items": []}


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_that_is_none_is_404(operator: httpx.AsyncClient, name: str) -> None:
    for method, path, content in (
        ("GET", f"/pools/{name}", None),
        ("PUT", f"/pools/{name}", b'{"max": 1}'),
        ("DELETE", f"/pools/{name}", None),
        ("PUT", f"/bundles/{name}", b"PK"),
        ("POST", f"/bundles/{name}/deploy", None),
    ):
        is_error(await operator.request(method, BASE + path, content=content), 404, "not_found")


@pytest.mark.parametrize("path", QUERIES)
async def test_a_bad_query_is_400(operator: httpx.AsyncClient, path: str) -> None:
    method = "DELETE" if path.startswith("/bundles") else "GET"
    is_error(await operator.request(method, BASE + path), 400, "invalid_request")


async def test_what_is_sound_is_accepted(operator: httpx.AsyncClient) -> None:
    for method, path, body in (
        ("POST", "/shares", {"tenant": "acme", "weight": 2}),
        ("POST", "/archive", {"older_than_s": 60}),
        ("PUT", "/pools/gpu", {"max": 4, "num_gpus": 1, "resources": {"tpu": 0.5}, "labels": {"tier": "!a"}}),
        ("POST", "/plane/takeover", {}),
    ):
        answer = await operator.request(method, BASE + path, json=body)
        assert answer.status_code == 200, answer.text

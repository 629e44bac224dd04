"""Plans and flows in POST /runs: how nodes become tasks, and every way to be refused (contracts/runs.md, section 2)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from orchestrator.definition import Container, Definition, TaskSpec
from tests.fakes_gateway import FakeGateway
from tests.fakes_live_runs import FakeLiveRuns
from tests.runs_requests import create, define, is_error, is_invalid
from tests.unit.serve_app.conftest import Connect

Json = dict[str, Any]

IMAGE = "registry.example/task:1"


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    """Somebody on this machine without a token, who has every scope."""
    return connect(None)


def nodes(names: str, **more: Any) -> list[Json]:
    """`"a b"` is two nodes."""
    return [{"id": name, **more} for name in names.split()]


def edges(arrows: str) -> list[Json]:
    """`"a>b b>c"` is two edges."""
    return [dict(zip(("from", "to"), arrow.split(">"), strict=True)) for arrow in arrows.split()]


def plan(names: str, arrows: str = "", **more: Any) -> Json:
    return {"plan": {"nodes": nodes(names, **more), "edges": edges(arrows)}}


async def steps(client: httpx.AsyncClient, body: Json) -> list[list[str]]:
    response = await client.post("/runs?mode=plan", json=body)
    assert response.status_code == 200, response.text
    assert set(response.json()) == {"mode", "plan"}
    found: list[list[str]] = response.json()["plan"]["steps"]
    return found


async def tasks(client: httpx.AsyncClient, live_runs: FakeLiveRuns, *given: Json) -> tuple[TaskSpec, ...]:
    """What a run of these nodes was created from."""
    wanted = live_runs.wanted(await create(client, {"plan": {"nodes": list(given), "edges": []}}))
    assert wanted.tasks is not None
    return wanted.tasks


# -- mode=plan (example 3)


@pytest.mark.parametrize(("names", "arrows", "expected"), [
    ("a b c", "a>c b.out>c.in", [["a", "b"], ["c"]]),
    ("inputB inputA processA", "inputA>processA inputB>processA", [["inputB", "inputA"], ["processA"]]),
    ("d c b a", "a>b b>c a>c c>d", [["a"], ["b"], ["c"], ["d"]]),
    ("a b", "a>b a>b a.x>b.y", [["a"], ["b"]]),
    ("a.b c", "a.b>c", [["a.b"], ["c"]]),
    ("z y x", "", [["z", "y", "x"]]),
    ("", "", []),
])  # fmt: skip
async def test_steps_are_generations_in_the_order_of_the_nodes(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, names: str, arrows: str, expected: list[list[str]]
) -> None:
    graph = plan(names, arrows)["plan"]
    assert await steps(client, {"plan": graph}) == expected
    flow = {"apiVersion": "v1", "kind": "Flow", "meta": {"name": "x"}, "graph": graph}
    assert await steps(client, {"flow": flow, "metadata": None}) == expected
    assert live_runs.count() == 0


async def test_edges_may_be_left_out(client: httpx.AsyncClient) -> None:
    assert await steps(client, {"plan": {"nodes": nodes("a b")}}) == [["a", "b"]]


async def test_a_large_plan_is_planned_too(client: httpx.AsyncClient) -> None:
    names = [f"n{number}" for number in range(1000)]
    arrows = " ".join(f"{names[number - 1]}>{names[number]}" for number in range(1, 1000))
    assert await steps(client, plan(" ".join(names), arrows)) == [[name] for name in names]
    again = plan(" ".join(names), f"{arrows} n999>n0")
    (detail,) = (await client.post("/runs", json=again)).json()["details"]
    assert detail.startswith("/plan cycle: n0 -> n1 -> ")


# -- nodes as tasks


async def test_a_bare_node_is_a_noop_with_the_contracts_defaults(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns
) -> None:
    (task,) = await tasks(client, live_runs, {"id": "a"})
    assert task == TaskSpec("a", "core.noop", retries=0, retry_delay_s=1, retry_cap_s=60, timeout_s=3600)


async def test_nodes_have_rules_branches_and_teardowns(client: httpx.AsyncClient, live_runs: FakeLiveRuns) -> None:
    up, down = await tasks(
        client,
        live_runs,
        {"id": "up", "trigger_rule": "always"},
        {"id": "down", "teardown_of": ["up"], "on_failure_fail_run": True},
    )
    assert up.trigger_rule == "always"
    assert (down.depends_on, down.teardown_of, down.on_failure_fail_run) == (("up",), ("up",), True)


async def test_a_node_undoes_another_one(client: httpx.AsyncClient, live_runs: FakeLiveRuns) -> None:
    _, refund = await tasks(client, live_runs, {"id": "pay"}, {"id": "refund", "compensates": "pay"})
    assert (refund.depends_on, refund.compensates) == (("pay",), "pay")


async def test_a_node_says_what_its_task_is(client: httpx.AsyncClient, live_runs: FakeLiveRuns) -> None:
    given = {
        "id": "a", "type": "core.sleep", "params": {"seconds": 1}, "retries": 20, "retry_delay_s": 90, "timeout_s": 5,
        "image": IMAGE, "command": ["run", "it"],
    }  # fmt: skip
    (task,) = await tasks(client, live_runs, given)
    expected = TaskSpec(
        "a", "core.sleep", params={"seconds": 1}, retries=20, retry_delay_s=90, retry_cap_s=90, timeout_s=5,
        container=Container(IMAGE, ("run", "it")),
    )  # fmt: skip
    assert task == expected


async def test_what_a_node_does_not_know_is_ignored(client: httpx.AsyncClient, live_runs: FakeLiveRuns) -> None:
    unknown = {
        "position": {"x": 1},
        "depends_on": ["b"],
        "inputs": {"x": "b"},
        "pool": "gpu",
        "priority": 5,
        "sla_s": 0,
    }
    nothing = dict.fromkeys(("type", "entrypoint", "image", "command"))
    assert await tasks(client, live_runs, {"id": "a", **unknown, **nothing}) == (
        TaskSpec("a", retry_delay_s=1, retry_cap_s=60),
    )


async def test_edges_are_dependencies_and_a_double_one_counts_once(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns
) -> None:
    wanted = live_runs.wanted(await create(client, plan("a b c", "b>c a.x>c.y a>c b.z>c")))
    assert [each.depends_on for each in wanted.tasks or ()] == [(), (), ("b", "a")]


async def test_a_plan_without_nodes_has_no_tasks_but_is_a_plan(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns
) -> None:
    assert live_runs.wanted(await create(client, plan(""))).tasks == ()
    assert live_runs.wanted(await create(client)).tasks is None


# -- what is refused


CYCLES = [
    ("a b", "a>b b>a", "cycle: a -> b -> a"), ("a", "a>a", "cycle: a -> a"),
    ("x a b c", "x>a b>c a>b c>a", "cycle: a -> b -> c -> a"), ("a b", "a.out>b.in b.out>a.in", "cycle: a -> b -> a"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "arrows", "text"), CYCLES)
async def test_a_cycle_is_told_by_its_path(client: httpx.AsyncClient, names: str, arrows: str, text: str) -> None:
    body = plan(names, arrows)
    is_invalid(await client.post("/runs", json=body), f"/plan {text}")
    flow = {"flow": {"kind": "Flow", "graph": body["plan"]}}
    is_invalid(await client.post("/runs", json=flow), f"/flow/graph {text}")


@pytest.mark.parametrize(("graph", "details"), [
    ({}, [" must have required property 'nodes'"]), ({"nodes": {}}, ["/nodes must be array"]),
    ({"nodes": None, "edges": {}}, ["/nodes must be array", "/edges must be array"]),
    ({"nodes": [1, "a", None]}, [f"/nodes/{n} must be object" for n in range(3)]),
    ({"nodes": [{}]}, ["/nodes/0 must have required property 'id'"]),
    ({"nodes": [{"id": 1}]}, ["/nodes/0/id must be string"]),
    ({"nodes": nodes("a b a")}, ["/nodes/2/id duplicate 'a'"]),
    ({"nodes": [{"id": "a b"}]}, ['/nodes/0/id must match pattern "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"']),
    ({"nodes": [{"id": "a"}], "edges": [1]}, ["/edges/0 must be object"]),
    ({"nodes": [{"id": "a"}], "edges": [{"from": "a"}]}, ["/edges/0 must have required property 'to'"]),
    ({"nodes": [{"id": "a"}], "edges": [{"from": 1, "to": "a"}]}, ["/edges/0/from must be string"]),
    ({"nodes": nodes("a b"), "edges": edges("a>x")}, ["/edges/0/to unknown node 'x'"]),
    ({"nodes": nodes("a b"), "edges": edges("a>b x.out>y.in")},
     ["/edges/1/from unknown node 'x'", "/edges/1/to unknown node 'y'"]),
    ({"nodes": nodes("a b.c"), "edges": edges("a.out>b.c")}, ["/edges/0/from unknown node 'a.out'"]),
    ({"nodes": nodes("a", image=1)}, ["/nodes/0/image must be a string of at least 1 character"]),
    ({"nodes": nodes("a", image="")}, ["/nodes/0/image must be a string of at least 1 character"]),
    ({"nodes": nodes("a", command="x")}, ["/nodes/0/command must be array of strings"]),
    ({"nodes": nodes("a", command=["x", 1])}, ["/nodes/0/command must be array of strings"]),
    ({"nodes": nodes("a", image="\0")}, ["/nodes/0/image holds a NUL character"]),
    ({"nodes": nodes("a", retries=21)}, ["/nodes/0/retries must be less than or equal to 20"]),
    ({"nodes": nodes("a", retries=-1)}, ["/nodes/0/retries must be greater than or equal to 0"]),
    ({"nodes": nodes("a", retries=1.5)}, ["/nodes/0/retries must be a valid integer"]),
    ({"nodes": nodes("a", retry_delay_s=-1)}, ["/nodes/0/retry_delay_s must be greater than or equal to 0"]),
    ({"nodes": nodes("a", timeout_s="5")}, ["/nodes/0/timeout_s must be a valid number"]),
    ({"nodes": nodes("a", params=[])}, ["/nodes/0/params must be a valid dictionary"]),
    ({"nodes": nodes("a", params={"n": 2**64})}, ["/nodes/0/params/n does not fit in 64 bits"]),
    ({"nodes": nodes("a", type="core.nope")},
     ["/nodes/0/type unknown type 'core.nope'; the core types are core.noop, core.echo, core.sleep, core.fail, "
      "core.approval, core.dag, core.signal, core.wait"]),
    ({"nodes": [{"id": "a", "type": "core.signal", "params": {"name": "go"}}]},
     ["/nodes/0/type is for DAGs: nobody could reach it in this run"]),
    ({"nodes": [*nodes("a"), *nodes("b", type="core.sleep", params={"seconds": -1})]},
     ["/nodes/1/params/seconds must be a number from 0 to 3600"]),
    ({"nodes": nodes("a", type="core.sleep")},
     ["/nodes/0/params/seconds is required: must be a number from 0 to 3600"]),
    ({"nodes": nodes("a", type="http", params={"url": "ftp://x"})},
     ["/nodes/0/params/url must be an http or https URL"]),
    ({"nodes": nodes("a", type="python")},
     ["/nodes/0/type give entrypoint ('module:function') instead of type 'python'"]),
    ({"nodes": nodes("a", type="core.noop", entrypoint="m:f")}, ["/nodes/0 give type or entrypoint, not both"]),
])  # fmt: skip
async def test_a_wrong_graph_is_400_and_names_what_was_posted(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, graph: Json, details: list[str]
) -> None:
    for query in ("", "?mode=plan", "?mode=k8s"):
        is_invalid(await client.post(f"/runs{query}", json={"plan": graph}), *(f"/plan{each}" for each in details))
        flow = {"flow": {"kind": "Flow", "graph": graph}}
        is_invalid(await client.post(f"/runs{query}", json=flow), *(f"/flow/graph{each}" for each in details))
    assert live_runs.count() == 0


@pytest.mark.parametrize(("flow", "details"), [
    ({"graph": {"nodes": []}}, ["/flow must have required property 'kind'"]),
    ({"kind": "Flow"}, ["/flow must have required property 'graph'"]),
    ({"kind": "flow", "graph": {"nodes": []}}, ["/flow/kind must be equal to 'Flow'"]),
    ({"kind": None, "graph": {"nodes": []}}, ["/flow/kind must be equal to 'Flow'"]),
    ({"kind": "Flow", "graph": None}, ["/flow/graph must be object"]),
])  # fmt: skip
async def test_a_flow_has_its_kind_and_a_graph(client: httpx.AsyncClient, flow: Json, details: list[str]) -> None:
    is_invalid(await client.post("/runs", json={"flow": flow}), *details)


async def test_at_most_twenty_faults_are_told(client: httpx.AsyncClient) -> None:
    response = await client.post("/runs", json={"plan": {"nodes": [1] * 50}})
    assert response.json()["details"][19] == "/plan/nodes/19 must be object"
    assert len(response.json()["details"]) == 20


# -- what may run here


NOT_ALLOWED = "no prefix in ORCHESTRATOR_ENTRYPOINT_ALLOW allows it"


@pytest.mark.parametrize("query", ["", "?mode=plan"])
async def test_code_of_the_server_runs_only_where_the_operator_allows_it(connect: Connect, query: str) -> None:
    client = connect(None, entrypoint_allow=("team.",))
    allowed = await client.post(f"/runs{query}", json=plan("a", entrypoint="team.jobs:run"))
    assert allowed.status_code == (200 if query else 201)
    for entrypoint in ("os:system", "teams:run"):
        refused = await client.post(f"/runs{query}", json=plan("a b", entrypoint=entrypoint))
        is_invalid(refused, *(f"/plan/nodes/{n}/entrypoint {NOT_ALLOWED}" for n in range(2)))
    shell = await client.post(f"/runs{query}", json=plan("a", type="bash", params={"command": "ls"}))
    is_invalid(shell, "/plan/nodes/0/type bash over HTTP needs ORCHESTRATOR_ALLOW_SHELL=1 on the server")


async def test_code_of_the_server_needs_scope_admin(connect: Connect, live_runs: FakeLiveRuns) -> None:
    bodies = {
        "entrypoint": plan("a", entrypoint="team.jobs:run"),
        "type": plan("a", type="bash", params={"command": "ls"}),
    }
    client = connect("client", entrypoint_allow=("team.",), allow_shell=True)
    for field, body in bodies.items():
        is_invalid(await client.post("/runs", json=body), f"/plan/nodes/0/{field} needs a token with scope admin")
        run_id = await create(connect("admin"), body)
        assert [each.type for each in live_runs.wanted(run_id).tasks or ()] in (["python"], ["bash"])


async def test_type_python_may_stand_beside_its_entrypoint(connect: Connect, live_runs: FakeLiveRuns) -> None:
    client = connect(None, entrypoint_allow=("team.",))
    (task,) = await tasks(client, live_runs, {"id": "a", "type": "python", "entrypoint": "team.jobs:run"})
    assert (task.type, task.entrypoint) == ("python", "team.jobs:run")


# -- mode=k8s


async def test_tasks_in_mode_k8s_need_a_cluster(
    client: httpx.AsyncClient, gateway: FakeGateway, live_runs: FakeLiveRuns
) -> None:
    await define(gateway, live_runs, TaskSpec("a"))
    await gateway.define_dag("default", Definition("empty", "me"), keep_tasks=False, expect=None, idem=None)
    live_runs.dags.add(("default", "empty"))
    for body in (plan("a"), plan("a", image=IMAGE), {"dag_id": "sales"}):
        response = await client.post("/runs?mode=k8s", json=body)
        is_error(response, 503, "k8s unavailable")
    assert live_runs.count() == 0
    for body in ({}, plan(""), {"dag_id": "empty"}):
        assert (await client.post("/runs?mode=k8s", json=body)).status_code == 201
    is_invalid(await client.post("/runs?mode=k8s", json=plan("a a")), "/plan/nodes/1/id duplicate 'a'")


async def test_tasks_in_mode_k8s_need_an_image(connect: Connect, gateway: FakeGateway, live_runs: FakeLiveRuns) -> None:
    client = connect(None, kubernetes_ready=True)
    await define(gateway, live_runs, TaskSpec("a"))
    missing = "must have an image: ORCHESTRATOR_K8S_IMAGE is not set"
    body = {"plan": {"nodes": [*nodes("a", image=IMAGE), *nodes("b", command=["x"])]}}
    is_invalid(await client.post("/runs?mode=k8s", json=body), f"/plan/nodes/1 {missing}")
    is_invalid(await client.post("/runs?mode=k8s", json={"dag_id": "sales"}), f"/dag_id {missing}")
    assert (await client.post("/runs?mode=k8s", json=plan("a", image=IMAGE))).status_code == 201
    assert (await client.post("/runs?mode=redis", json=body)).status_code == 201


async def test_the_operator_may_give_an_image_to_those_that_have_none(
    connect: Connect, gateway: FakeGateway, live_runs: FakeLiveRuns
) -> None:
    client = connect(None, kubernetes_ready=True, kubernetes_image=IMAGE)
    await define(gateway, live_runs, TaskSpec("a"))
    for body in (plan("a b", "a>b"), {"dag_id": "sales"}):
        run_id = (await client.post("/runs?mode=k8s", json=body)).json()["runId"]
        assert live_runs.wanted(run_id).mode == "k8s"

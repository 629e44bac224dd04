"""A graph in the body of POST /runs (`plan`, or `flow/graph`) as the core's tasks.

    {"nodes": [{"id": "a"}, {"id": "b"}], "edges": [{"from": "a.out", "to": "b.in"}]}  ->  a, b depends on a

Here nodes become tasks and edges dependencies; what a type, its params, retries and spans may be is
`orchestrator.spec`'s to say, and whether the graph has a cycle `orchestrator.graph`'s. Faults name what was
posted: `plan/nodes/0/params/seconds`, `flow/graph/edges/0/to`.

`a.out` is pin `out` of node `a`, unless some node's id has a dot: then ids are taken as they are. `edges` may be
left out. `type: "python"` may stand beside an `entrypoint`. Retries wait at most `RETRY_CAP_S`, or `retry_delay_s`
when that is more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator import spec, spec_form
from orchestrator.definition import Container, Definition, TaskSpec
from orchestrator.errors import Invalid
from orchestrator.faults import Fault, refusal

RETRY_DELAY_S = 1.0
#: contracts/README.md, section 7
RETRY_CAP_S = 60.0

#: keys of a node that mean the same in a task
_OF_TASKS = ("type", "entrypoint", "params", "retries", "retry_delay_s", "timeout_s", *spec_form.RULES)
#: keys of a node that say what its container is; only mode k8s looks at them
_OF_CONTAINERS = ("image", "command")
#: types that wait for somebody on the dags surface, which does not show runs of inline plans
_OUT_OF_REACH = frozenset({"core.signal", "core.approval"})
_ID = re.compile(spec_form.TASK_ID, re.ASCII)
#: a name that `spec` wants and nobody sees
_NAME = "plan"

Json = dict[str, Any]


def read(at: str, graph: object, check_origin: Callable[[Definition], None]) -> tuple[TaskSpec, ...]:
    """The tasks of `graph`, which the body has at `at`. Raises Invalid, also for what `check_origin` does not allow."""
    nodes, edges = _parts(at, graph)
    needs = _needs(at, edges, [node["id"] for node in nodes])
    body = {"dag_id": _NAME, "owner": _NAME, "tasks": [_task(node, needs[node["id"]]) for node in nodes]}
    try:
        definition, _ = spec.parse_dag(body)
        check_origin(definition)
    except Invalid as error:
        raise _as_posted(at, error) from None
    if unreachable := [n for n, task in enumerate(definition.tasks) if task.type in _OUT_OF_REACH]:
        raise refusal([(f"{at}/nodes/{n}/type", "is for DAGs: nobody could reach it in this run") for n in unreachable])
    return tuple(_completed(task, node) for task, node in zip(definition.tasks, nodes, strict=True))


def _parts(at: str, graph: object) -> tuple[list[Json], list[Json]]:
    """Nodes with distinct ids, and edges with two texts as ends."""
    if not isinstance(graph, dict):
        raise refusal([(at, "must be object")])
    if "nodes" not in graph:
        raise refusal([(at, "must have required property 'nodes'")])
    nodes, edges = graph["nodes"], graph.get("edges", [])
    faults = [
        (f"{at}/{name}", "must be array") for name, part in (("nodes", nodes), ("edges", edges)) if not _is_list(part)
    ]
    if faults:
        raise refusal(faults)
    seen: set[str] = set()
    for position, node in enumerate(nodes):
        faults += _in(f"{at}/nodes/{position}", _node_faults(node, seen))
    for position, edge in enumerate(edges):
        faults += _in(f"{at}/edges/{position}", _edge_faults(edge))
    if faults:
        raise refusal(faults)
    return nodes, edges


def _needs(at: str, edges: Sequence[Json], ids: Sequence[str]) -> Mapping[str, dict[str, None]]:
    """Id -> the ids it waits for, in the order of the edges. An edge that is there twice counts once."""
    needs: dict[str, dict[str, None]] = {each: {} for each in ids}
    with_pins = not any("." in each for each in ids)
    faults: list[Fault] = []
    for position, edge in enumerate(edges):
        ends = {side: edge[side].partition(".")[0] if with_pins else edge[side] for side in ("from", "to")}
        unknown = [(side, f"unknown node '{end[:100]}'") for side, end in ends.items() if end not in needs]
        if unknown:
            faults += _in(f"{at}/edges/{position}", unknown)
        else:
            needs[ends["to"]][ends["from"]] = None
    if faults:
        raise refusal(faults)
    return needs


def _node_faults(node: object, seen: set[str]) -> list[Fault]:
    if not isinstance(node, dict):
        return [("", "must be object")]
    faults = _required(node, "id")
    if not faults and not _ID.fullmatch(node["id"]):
        faults = [("id", f'must match pattern "{spec_form.TASK_ID}"')]
    elif not faults and node["id"] in seen:
        faults = [("id", f"duplicate '{node['id']}'")]
    elif not faults:
        seen.add(node["id"])
    if not (node.get("image") is None or (isinstance(node["image"], str) and node["image"])):
        faults.append(("image", "must be a string of at least 1 character"))
    command = node.get("command")
    if not (command is None or (_is_list(command) and all(isinstance(word, str) for word in command))):
        faults.append(("command", "must be array of strings"))
    return faults


def _edge_faults(edge: object) -> list[Fault]:
    if not isinstance(edge, dict):
        return [("", "must be object")]
    return [fault for side in ("from", "to") for fault in _required(edge, side)]


def _required(part: Json, name: str) -> list[Fault]:
    """What is wrong with a text that must be there."""
    if name not in part:
        return [("", f"must have required property '{name}'")]
    return [] if isinstance(part[name], str) else [(name, "must be string")]


def _task(node: Json, needs: Mapping[str, None]) -> Json:
    """The node as `spec` reads tasks; it also looks whether the text for containers can be kept."""
    task = {"id": node["id"], "depends_on": list(needs), "retry_delay_s": RETRY_DELAY_S}
    task |= {key: node[key] for key in (*_OF_TASKS, *_OF_CONTAINERS) if key in node}
    if task.get("type") == "python" and task.get("entrypoint") is not None:
        del task["type"]
    return task


def _completed(task: TaskSpec, node: Json) -> TaskSpec:
    """`task` with what only a node can say."""
    container = Container(node.get("image"), tuple(node.get("command") or ()))
    return msgspec.structs.replace(
        task,
        retry_cap_s=max(RETRY_CAP_S, task.retry_delay_s),
        container=None if container == Container() else container,
    )


def _as_posted(at: str, error: Invalid) -> Invalid:
    """The same refusal, naming the nodes that became the tasks."""
    if error.details == (("tasks", "cycle"),):
        return refusal([(at, error.message.removeprefix("dependency "))])
    return refusal([(_field_as_posted(at, field), message) for field, message in error.details])


def _field_as_posted(at: str, field: str) -> str:
    first, *rest = field.split("/")
    return "/".join([at, "nodes", *rest]) if first == "tasks" else at


def _in(place: str, faults: Sequence[Fault]) -> list[Fault]:
    return [(f"{place}/{field}" if field else place, message) for field, message in faults]


def _is_list(value: object) -> bool:
    return isinstance(value, list)

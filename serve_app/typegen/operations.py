"""What the client is made from: the operations of an OpenAPI description, each with its TypeScript name and types.

Names. The seeds' clients call some methods by names of their own (`listOrchestrators`); these are `NAMES`, by method
and path, which the contracts fix. Any other operation is called after its id, in camel case and without the path that
FastAPI appends to it; where that is not unique, after its whole id.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from orchestrator.errors import Invalid

Json = Mapping[str, Any]

#: method and path, without the names of its parameters -> name in the client
NAMES = MappingProxyType(
    {
        "GET /health": "healthCheck",
        "GET /api/orchestrators": "listOrchestrators",
        "POST /api/orchestrators": "startOrchestrator",
        "GET /api/orchestrators/{}": "getOrchestrator",
        "GET /api/orchestrators/{}/status": "getOrchestratorStatus",
        "POST /api/orchestrators/{}/pause": "pauseOrchestrator",
        "POST /api/orchestrators/{}/resume": "resumeOrchestrator",
        "POST /api/orchestrators/{}/shutdown": "shutdownOrchestrator",
        "POST /api/orchestrators/{}/skip-task": "skipTask",
        "POST /api/orchestrators/{}/retry-task": "retryTask",
        "GET /api/orchestrators/{}/events-sse": "followOrchestrator",
        "GET /api/plans": "listPlans",
        "GET /api/plans/{}/status": "getPlanStatus",
        "GET /api/plans/{}/tasks": "getPlanTasks",
        "GET /api/plans/{}/findings": "listPlanFindings",
        "GET /api/plans/{}/findings/{}": "getFindingContent",
        "POST /runs": "createRun",
        "GET /runs/{}": "getRun",
        "DELETE /runs/{}": "cancelRun",
        "GET /runs/{}/checkpoints": "listCheckpoints",
        "POST /runs/{}/checkpoints": "postCheckpoint",
        "GET /runs/{}/events": "followRun",
    }
)

_METHODS = ("get", "post", "put", "patch", "delete")
_JSON = re.compile(r"[/+]json\b")
_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Content:
    """A body, there or back."""

    media: str
    schema: Json
    #: where the generated types have it
    place: str

    @property
    def is_json(self) -> bool:
        """JSON of any kind."""
        return _JSON.search(self.media) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of the client."""

    name: str
    #: its id in the description
    id: str
    #: in lower case
    method: str
    path: str
    summary: str
    #: names of the path's parameters, in order
    names: tuple[str, ...]
    has_query: bool
    query_required: bool
    body: Content | None
    body_required: bool
    #: of successes
    answers: tuple[Content, ...]
    streams: bool

    @property
    def key(self) -> str:
        """How `NAMES` calls it."""
        return f"{self.method.upper()} {re.sub(r'{[^}]*}', '{}', self.path)}"


def operations_of(description: Json) -> list[Operation]:
    """Every operation, in the description's order. Raises Invalid when two of them would have one name."""
    found = list(_found(description))
    taken = Counter(each.name for each in found)
    named = [
        each if taken[each.name] == 1 or each.key in NAMES else replace(each, name=camel(each.id)) for each in found
    ]
    if twice := [name for name, times in Counter(each.name for each in named).items() if times > 1]:
        raise Invalid(f"several operations are called {', '.join(twice)}")
    return named


def camel(name: str) -> str:
    """`dags_get_run` as `dagsGetRun`."""
    words: list[str] = re.findall(r"[A-Za-z0-9]+", name)
    first, *rest = words
    return first[:1].lower() + first[1:] + "".join(word[:1].upper() + word[1:] for word in rest)


def _found(description: Json) -> Iterator[Operation]:
    for path, item in description["paths"].items():
        for method in _METHODS:
            if method in item:
                yield _operation(path, method, item[method], item.get("parameters", []))


def _operation(path: str, method: str, described: Json, shared: list[Json]) -> Operation:
    id_: str = described.get("operationId") or f"{method}{path}"
    queries = [each for each in (*shared, *described.get("parameters", ())) if each.get("in") == "query"]
    asked = described.get("requestBody", {})
    place = f'paths["{path}"]["{method}"]'
    bodies = _contents(asked, f'NonNullable<{place}["requestBody"]>')
    answers = [
        content
        for status, response in described.get("responses", {}).items()
        if status.startswith("2")
        for content in _contents(response, f'{place}["responses"][{status}]')
    ]
    unnamed = Operation(
        name=_name(id_, path, method),
        id=id_,
        method=method,
        path=path,
        summary=described.get("summary", ""),
        names=tuple(re.findall(r"{([^}]*)}", path)),
        has_query=bool(queries),
        query_required=any(each.get("required") for each in queries),
        body=min(bodies, key=lambda each: not each.is_json, default=None),
        body_required=bool(asked.get("required")),
        answers=tuple(each for each in answers if each.media != _STREAM),
        streams=any(each.media == _STREAM for each in answers),
    )
    return replace(unnamed, name=NAMES.get(unnamed.key, unnamed.name))


def _name(id_: str, path: str, method: str) -> str:
    """FastAPI's own ids are `list_plans_api_plans_get`."""
    return camel(id_.removesuffix(re.sub(r"\W", "_", f"{path}_{method}")))


def _contents(described: Json, place: str) -> list[Content]:
    content = described.get("content", {})
    return [Content(media, each.get("schema", {}), f'{place}["content"]["{media}"]') for media, each in content.items()]

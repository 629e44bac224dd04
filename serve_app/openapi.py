"""What the descriptions of several surfaces are made of: parts of OpenAPI 3.1 operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

Json = dict[str, Any]

#: headers: of every answer, of those that ask for patience, of a history that is gone, of an answer that was stored
REQUEST_ID: Json = {"X-Request-Id": {"required": True, "schema": {"type": "string"}}}
RETRY_AFTER: Json = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
LINK: Json = {"Link": {"description": "the run as it is now", "required": True, "schema": {"type": "string"}}}


def replayed(key: str) -> Json:
    """The header of an answer that was stored under the key in that header of the request."""
    description = f"present when the answer was stored under this {key}"
    return {"Idempotent-Replay": {"description": description, "schema": {"type": "string", "enum": ["true"]}}}


# ── schemas ───────────────────────────────────────────────────────────────────────────────────────


def models_in(prefix: str, *modules: ModuleType) -> list[type[BaseModel]]:
    """The models in these modules whose names begin so, each once."""
    found = (each for module in modules for each in vars(module).values() if isinstance(each, type))
    models = (each for each in found if issubclass(each, BaseModel) and each.__name__.startswith(prefix))
    return list(dict.fromkeys(models))


def schemas(models: Iterable[type[BaseModel]]) -> Json:
    """Name -> schema of these models, and of what they consist of."""
    template = "#/components/schemas/{model}"
    _, definitions = models_json_schema([(each, "validation") for each in models], ref_template=template)
    found: Json = definitions["$defs"]
    return found


def ref(model: type[BaseModel]) -> Json:
    """The schema of the model, where `schemas` has it."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def event(mark: Json, kind: Json | None = None, data: Json | None = None) -> Json:
    """One event of a stream; of a stream, OpenAPI 3.1 describes a single event. `mark` is about its id."""
    properties = {
        "id": _text(mark),
        "event": _text(kind),
        "data": _text({"contentMediaType": "application/json", **(data or {})}),
    }
    return {"type": "object", "required": ["event", "data"], "properties": properties}


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────


def one(model: type[BaseModel], example: object) -> Json:
    """A body that is one of these."""
    return {"schema": ref(model), "example": example}


def many(model: type[BaseModel], example: object) -> Json:
    """A body that is an array of them."""
    return {"schema": {"type": "array", "items": ref(model)}, "example": [example]}


def asked(model: type[BaseModel], examples: Mapping[str, object], *, required: bool) -> Json:
    """The body of a request; `examples` by their names."""
    named = {name: {"value": value} for name, value in examples.items()}
    return {"required": required, "content": {"application/json": {"schema": ref(model), "examples": named}}}


def answered(description: str, body: Json, headers: Json, media: str = "application/json") -> Json:
    """An answer with that body."""
    return {"description": description, "headers": headers, "content": {media: body}}


# ── parameters ────────────────────────────────────────────────────────────────────────────────────


def path(name: str, example: str, schema: Json | None = None) -> Json:
    """A part of the path; text unless the schema says something else."""
    return {"name": name, "in": "path", "required": True, "schema": _text(schema), "example": example}


def query(name: str, schema: Json | None = None, description: str = "") -> Json:
    """The same in the query, where it may be missing."""
    return {"name": name, "in": "query", "required": False, "schema": _text(schema), "description": description}


def header(name: str, description: str, schema: Json | None = None) -> Json:
    """The same in a header, where it may be missing."""
    return {"name": name, "in": "header", "required": False, "schema": _text(schema), "description": description}


def _text(schema: Json | None) -> Json:
    return {"type": "string", **(schema or {})}

"""The three JSON Schemas of this surface: served at `/schemas/…`, and components of the OpenAPI document.

`schemas/{run,checkpoint,event}.schema.json` are the one description of Run, Checkpoint and Event; the seed calls
them `schemas/orchestrator/*.schema.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

#: name of the component -> its schema's file
NAMES = {
    "RunsRun": "run.schema.json",
    "RunsCheckpoint": "checkpoint.schema.json",
    "RunsEvent": "event.schema.json",
}

_FOLDER = Path(__file__).with_name("schemas")
#: what a schema says of itself as a document
_OF_DOCUMENTS = ("$schema", "$id")


def documents() -> dict[str, bytes]:
    """Path -> the schema served there."""
    return {f"/schemas/{file}": (_FOLDER / file).read_bytes() for file in NAMES.values()}


def components() -> dict[str, Any]:
    """Name -> the same schema as an OpenAPI component."""
    return {name: _component((_FOLDER / file).read_bytes()) for name, file in NAMES.items()}


def _component(text: bytes) -> dict[str, Any]:
    for name, file in NAMES.items():
        text = text.replace(b'"/schemas/%s"' % file.encode(), b'"#/components/schemas/%s"' % name.encode())
    schema: dict[str, Any] = orjson.loads(text)
    return {key: value for key, value in schema.items() if key not in _OF_DOCUMENTS}

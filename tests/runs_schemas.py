"""The published JSON Schemas of the runs surface, as a test asks whether something keeps to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

PATHS = {name: f"/schemas/{name}.schema.json" for name in ("run", "checkpoint", "event")}


class Schemas:
    """Run, Checkpoint and Event as a server publishes them; `documents` by their path."""

    def __init__(self, documents: Mapping[str, bytes | str]) -> None:
        parsed = {path: json.loads(text) for path, text in documents.items()}
        for each in parsed.values():
            Draft202012Validator.check_schema(each)
        resources = [(path, Resource.from_contents(each, DRAFT202012)) for path, each in parsed.items()]
        registry: Registry[Any] = Registry().with_resources(resources)
        self._validators = {name: Draft202012Validator(parsed[path], registry=registry) for name, path in PATHS.items()}

    def valid(self, name: str, value: Any) -> bool:
        """Does `value` keep to the schema `name`: run, checkpoint or event?"""
        return self._validators[name].is_valid(value)

    def check(self, name: str, value: Any) -> Any:
        """`value` itself; raises when it does not keep to the schema `name`."""
        self._validators[name].validate(value)
        return value

"""`api-types.ts`, by npm's openapi-typescript, which knows all of OpenAPI.

It gets a copy of the description that says plainly which keys are there. A key with a default may be left out of a
request and is always in an answer, but the tool has one switch for both. So what only answers have keeps its defaults
(the key is there), and what requests have loses them (the key may be left out), as does a default of null, which
surfaces render either way.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import Invalid

#: both pinned, so that the same description gives the same file
PACKAGES = ("openapi-typescript@7.13.0", "typescript@5.9.3")
_REF = "#/components/schemas/"
_TIMEOUT_S = 300


def write_types(description: Mapping[str, Any], target: Path) -> None:
    """`target` holds the types. Raises Invalid when npm or its registry cannot be had."""
    npx = shutil.which("npx")
    if npx is None or shutil.which("node") is None:
        raise Invalid(
            f"{target.name} needs Node.js 18 or newer with npm, which is not installed: install it "
            f"(Debian: `apt-get install nodejs npm`) and run this again, or run `{by_hand(target)}` elsewhere"
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "openapi.json")
        source.write_text(json.dumps(prepared(description)), encoding="utf-8")
        packages = [option for each in PACKAGES for option in ("--package", each)]
        command = [npx, "--yes", *packages, "openapi-typescript", str(source), "--output", str(target.absolute())]
        _run(command, folder, target)


def by_hand(target: Path) -> str:
    """What a person can run instead, a little less exact about defaults."""
    return f"npx {PACKAGES[0]} openapi.json --output {target.name}"


def prepared(description: Mapping[str, Any]) -> dict[str, Any]:
    """The copy that the tool gets."""
    result: dict[str, Any] = copy.deepcopy(dict(description))
    schemas: dict[str, Any] = result.get("components", {}).get("schemas", {})
    sent = _reachable(_bodies(result), schemas)
    for name, schema in schemas.items():
        for keyed in _objects(schema):
            for each in keyed["properties"].values():
                if isinstance(each, dict) and "default" in each and (name in sent or each["default"] is None):
                    del each["default"]
    return result


def _run(command: list[str], folder: str, target: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Invalid(f"{target.name}: npm did not answer within {_TIMEOUT_S} s; run this again") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise Invalid(f"{target.name}: openapi-typescript failed; is npm's registry reachable?\n{said}")


def _bodies(description: Mapping[str, Any]) -> Iterator[Any]:
    for item in description.get("paths", {}).values():
        for operation in item.values():
            if isinstance(operation, dict):
                yield operation.get("requestBody")


def _reachable(roots: Iterator[Any], schemas: Mapping[str, Any]) -> set[str]:
    """Names of the components that `roots` refer to, also through others."""
    found: set[str] = set()
    left = [name for root in roots for name in _references(root)]
    while left:
        name = left.pop()
        if name in schemas and name not in found:
            found.add(name)
            left.extend(_references(schemas[name]))
    return found


def _references(value: Any) -> Iterator[str]:
    for each in _dicts(value):
        reference = each.get("$ref")
        if isinstance(reference, str) and reference.startswith(_REF):
            yield reference.removeprefix(_REF)


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    return (each for each in _dicts(schema) if isinstance(each.get("properties"), dict))


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _dicts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _dicts(each)

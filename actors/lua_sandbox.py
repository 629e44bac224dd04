"""What a pipeline's script defines: the script runs, in a process that can do nothing, and its table is read.

    source ─▶ child (2 s of CPU, 5 s, 64 MiB) ─▶ plain values ─▶ PipelineDefinition, or Invalid with the contract's text

A child takes a few hundredths of a second, start included, so none is kept waiting. At most SCRIPTS_MAX run at once:
scripts that use up their time cannot take every CPU from the server. Source: pipelines contract, section 5.
"""

from __future__ import annotations

import asyncio
from typing import Any

from actors.lua_process import Json, LuaDied, LuaProcess
from orchestrator.errors import Invalid, Unavailable
from orchestrator.pipeline import Input, PipelineDefinition, Stage, checked

SOURCE_MAX_BYTES = 1024 * 1024
MEMORY_BYTES = 64 * 1024 * 1024
CPU_S = 2
WALL_S = 5.0
#: scripts that run at once, and how long another one waits for its turn
SCRIPTS_MAX = 2
PATIENCE_S = 3.0
_TYPES = ("string", "number", "bool")


class LuaSandbox:
    """Validates scripts; one per event loop."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(SCRIPTS_MAX)

    async def validate(self, source: str) -> PipelineDefinition:
        """What the script defines, with "" for a name it does not give.

        Raises Invalid; Unavailable when others' scripts take all the time there is.
        """
        if not source.strip():
            raise Invalid("Pipeline script cannot be empty")
        if len(source.encode("utf-8", "surrogatepass")) > SOURCE_MAX_BYTES:
            raise Invalid(f"Invalid Lua script: it is longer than {SOURCE_MAX_BYTES} bytes")
        try:
            await asyncio.wait_for(self._turns.acquire(), PATIENCE_S)
        except TimeoutError:
            raise Unavailable("other scripts are being validated") from None
        try:
            return read_definition(await _outcome(source))
        finally:
            self._turns.release()


async def _outcome(source: str) -> Json:
    request = {
        "source": source.encode("utf-8", "replace").decode(),
        "memory_bytes": MEMORY_BYTES,
        "cpu_s": CPU_S,
    }
    try:
        async with asyncio.timeout(WALL_S), LuaProcess(request) as process:
            return await process.line()
    except TimeoutError:
        raise Invalid(f"Invalid Lua script: it took longer than {WALL_S:g} s") from None
    except LuaDied as died:
        raise Invalid(f"Invalid Lua script: {died}") from None


def read_definition(outcome: Json) -> PipelineDefinition:
    """What the child's last line says. Raises Invalid."""
    if "refused" in outcome:
        raise Invalid(outcome["refused"])
    found = outcome["definition"]
    return PipelineDefinition(
        name=_text(found["name"], "name") or "",
        description=_text(found["description"], "description"),
        required_modules=tuple(dict.fromkeys((*_texts(found, "requires"), *_texts(found, "plugins")))),
        tags=tuple(_tag(each) for each in _array(found["tags"], "tags")),
        inputs=tuple(_input(name, about) for name, about in _named(found["inputs"], "inputs").items()),
        stages=_stages(found["stages"]),
    )


def _stages(found: Any) -> tuple[Stage, ...]:
    if not found:
        raise Invalid("Pipeline must have at least one stage")
    stages: dict[str, Stage] = {}
    for number, each in enumerate(_array(found, "stages"), 1):
        name = _text(each["name"], f"name of stage {number}")
        if not name or not name.strip():
            raise _wrong(f"stage {number} has no name")
        if name in stages:
            raise _wrong(f"there are two stages '{name}'")
        if each["script"] != "function":
            raise _wrong(f"script of stage '{name}' must be a function")
        if each["condition"] not in ("function", "nil"):
            raise _wrong(f"condition of stage '{name}' must be a function")
        image = _text(each["container"], f"container of stage '{name}'")
        stages[name] = Stage(name, container=image, conditional=each["condition"] == "function")
    return tuple(stages.values())


def _input(name: str, about: Any) -> Input:
    said = _named(about, f"input '{name}'")
    kind = said.get("type", "string")
    if kind not in _TYPES:
        raise _wrong(f"type of input '{name}' must be one of {', '.join(_TYPES)}")
    for flag in ("required", "secret"):
        if not isinstance(said.get(flag, False), bool):
            raise _wrong(f"{flag} of input '{name}' must be true or false")
    options = _array(said.get("options"), f"options of input '{name}'")
    found = Input(
        name=name,
        type=kind,
        description=_text(said.get("description"), f"description of input '{name}'"),
        required=said.get("required", False),
        default=said.get("default"),
        options=tuple(options),
        secret=said.get("secret", False),
    )
    if found.default is not None:
        try:
            checked((found,), {name: found.default})
        except Invalid as error:
            raise _wrong(f"default of input '{name}': {error}") from None
    return found


def _tag(found: Any) -> Any:
    if isinstance(found, str):
        return found
    if not isinstance(found, dict) or not all(isinstance(found.get(part), str) for part in ("key", "value")):
        raise _wrong("tags must be strings or tables with key and value")
    return {"key": found["key"], "value": found["value"]}


def _texts(found: Json, field: str) -> list[str]:
    texts = _array(found[field], field)
    if not all(isinstance(each, str) and each for each in texts):
        raise _wrong(f"{field} must be an array of strings")
    return texts


def _text(found: Any, what: str) -> str | None:
    if found is None or isinstance(found, str):
        return found
    raise _wrong(f"{what} must be a string")


def _array(found: Any, what: str) -> list[Any]:
    if found is None or found == {}:  # Lua does not tell an empty array from an empty table
        return []
    if not isinstance(found, list):
        raise _wrong(f"{what} must be an array")
    return found


def _named(found: Any, what: str) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong(f"{what} must be a table of names")
    return found


def _wrong(what: str) -> Invalid:
    return Invalid(f"Invalid pipeline definition: {what}")

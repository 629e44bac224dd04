"""What a pipeline's script defines, and what a launch has to give it.

    script ─▶ PipelineDefinition ─▶ (body of the create request) ─▶ required modules, name, tags
    parameters of a launch ─▶ `checked`: defaults filled in, converted, refused

The script itself runs elsewhere, in a sandbox; this is what comes out of it. An input with `secret = true` takes a text
that is stored encrypted only and shown as `***` (`orchestrator/masking.py`); it can have no default and no options,
since these would stand in the script for everybody to read. The contract is silent about secrets; all this is additive.
Source: pipelines contract, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from orchestrator.errors import Invalid

InputType = Literal["string", "number", "bool"]

#: modules that every runner has: they are no requirement
UNIVERSAL = frozenset({"log", "env", "input", "output", "pipeline"})
NAME_MAX = 255
#: bytes of JSON
PARAMETERS_MAX = 500 * 1024
#: stands for a secret wherever one is shown
MASK = "***"


class Input(msgspec.Struct, frozen=True, omit_defaults=True):
    """One parameter that the script declares. `default` None = there is none; `options` empty = any value."""

    name: str
    type: InputType = "string"
    description: str | None = None
    required: bool = False
    default: Any = None
    options: tuple[Any, ...] = ()
    #: additive, `secret = true` in the script
    secret: bool = False


class Stage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stage; what it does stays in the script."""

    name: str
    #: image that `process.run` uses
    container: str | None = None
    #: it has a condition, and may be skipped
    conditional: bool = False


class PipelineDefinition(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a script returned, checked in form. `required_modules`: `requires` and `plugins`, as they are written."""

    name: str
    description: str | None = None
    required_modules: tuple[str, ...] = ()
    #: text or {"key", "value"}
    tags: tuple[Any, ...] = ()
    inputs: tuple[Input, ...] = ()
    stages: tuple[Stage, ...] = ()


def check_definition(definition: PipelineDefinition) -> None:
    """What Lua alone does not say: the secrets among the inputs are texts, and stand nowhere. Raises Invalid."""
    for each in definition.inputs:
        if each.secret and each.type != "string":
            raise Invalid(f"Invalid pipeline definition: secret input '{each.name}' must be of type string")
        if each.secret and (each.default is not None or each.options):
            raise Invalid(f"Invalid pipeline definition: secret input '{each.name}' can have no default and no options")


def check_name(name: str) -> None:
    """Raises Invalid with the contract's text."""
    if not name.strip():
        raise Invalid("Pipeline name cannot be empty")
    if len(name) > NAME_MAX:
        raise Invalid(f"Pipeline name is too long (max {NAME_MAX} characters)")


def modules_to_match(
    definition: PipelineDefinition, wanted: Sequence[str], tags: Sequence[Any] | None
) -> tuple[str, ...]:
    """What a runner must have, each once, in order of appearance.

    `wanted`, when there are any, stand instead of the script's own; tags {key = "capability"} of both add theirs.
    """
    named = [*(wanted or definition.required_modules), *_capabilities(definition.tags), *_capabilities(tags or ())]
    return tuple(module for module in dict.fromkeys(named) if module not in UNIVERSAL)


def _capabilities(tags: Sequence[Any]) -> list[str]:
    pairs = [tag for tag in tags if isinstance(tag, Mapping) and tag.get("key") == "capability"]
    return [value for tag in pairs if isinstance(value := tag.get("value"), str) and value]


# ── launch ────────────────────────────────────────────────────────────────────────────────────────


def checked(inputs: Sequence[Input], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a job: defaults filled in, texts of numbers and truth values converted.

    Parameters that no input declares pass. Raises Invalid with the contract's text.
    """
    if len(msgspec.json.encode(parameters)) > PARAMETERS_MAX:
        raise Invalid(f"Parameters are too large (max: {PARAMETERS_MAX} bytes)")
    given = dict(parameters)
    for each in inputs:
        value = given.get(each.name)
        if value is not None:
            given[each.name] = _of_type(each, value)
        elif each.default is not None:
            given[each.name] = _converted(each.type, each.default)
        elif each.required:
            raise Invalid(f"Missing required input '{each.name}' (type: {each.type})")
    return given


def _of_type(wanted: Input, given: Any) -> Any:
    value = _converted(wanted.type, given)
    if not _fits(wanted.type, value):
        got = MASK if wanted.secret else msgspec.json.encode(given).decode()
        raise Invalid(f"Input '{wanted.name}' expected type '{wanted.type}', but got: {got}")
    options = [_converted(wanted.type, option) for option in wanted.options]
    if options and value not in options:
        raise Invalid(f"Invalid value for input '{wanted.name}'. Must be one of: {', '.join(map(_text, options))}")
    return value


def _converted(kind: InputType, value: Any) -> Any:
    """Some callers send every value as text."""
    if not isinstance(value, str) or kind == "string":
        return value
    try:
        read = msgspec.json.decode(value.encode())
    except (msgspec.MsgspecError, UnicodeError):
        return value
    return read if _fits(kind, read) and value == value.strip() else value


def _fits(kind: InputType, value: Any) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "bool":
        return isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()

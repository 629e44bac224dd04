"""What a task is called with: its params, the run's params, and what its dependencies returned.

Authoring writes this encoding, a definition stores it as JSON, the worker undoes it here:

    params   {"n": 5, "parts": [null, null], "day": {"$param": "day", "default": "{{ from }}"}}
    inputs   {"x": "extract", "parts/0": "left", "parts/1": "right"}

1. The run's params are merged over the task's own, name by name (contract of `POST /runs`). They do not
   replace what `inputs` fill, nor `{"$fixed": value}`, which authoring writes where a task's parameter
   merely has the same name as a parameter of the DAG. For `bash`, `http` and what waits they replace nothing:
   whoever may start a run must not choose the command, where a stored header is sent, or who approves.
2. `{"$param": name, "default": value}`, at any depth, becomes the run's param, else the default.
3. In strings, at any depth, `{{ from }}`, `{{ to }}`, `{{ run_id }}`, `{{ dag_id }}` are filled in; of a run that is
   about a partition `{{ partition }}`, and `{{ partition.region }}` where partitions are a product; in an instance of a
   mapped task `{{ map_index }}`.
4. Each input's value is put at its path: object keys and list positions with slashes between (JSON pointer
   without its first slash; `~1` is a slash in a key, `~0` a tilde). Nothing in it is looked at.

What cannot be bound raises `PermanentFailure`: trying again would not help.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Container, Mapping
from functools import lru_cache
from typing import Any

from orchestrator import partitions
from orchestrator.definition import WAITING_TYPES
from orchestrator.errors import PermanentFailure

#: a task function's parameter of this name gets the TaskContext
CONTEXT = "ctx"
#: a value the run's params give
PARAM = "$param"
#: a value the run's params do not replace
FIXED = "$fixed"
#: types whose params only `$param` can change
GUARDED = frozenset({"bash", "http"}) | WAITING_TYPES

_TEMPLATE = re.compile(r"\{\{\s*(from|to|run_id|dag_id|map_index|partition(?:\.[A-Za-z_][A-Za-z0-9_]*)?)\s*\}\}")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def facts(
    run_id: str, dag_id: str, window: tuple[str, str] | None, partition: str = "", map_index: int | None = None
) -> dict[str, str]:
    """What templates can tell about a run, and about an instance of a mapped task."""
    told = {"run_id": run_id, "dag_id": dag_id}
    if window is not None:
        told["from"], told["to"] = window
    if partition:
        told["partition"] = partitions.plain(partition)
        told |= {f"partition.{name}": value for name, value in partitions.parts_of(partition).items()}
    if map_index is not None:
        told["map_index"] = str(map_index)
    return told


def bind(
    task_type: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, Any],
    run_params: Mapping[str, Any],
    told: Mapping[str, str],
) -> dict[str, Any]:
    """The params of a task of any type but `python`, whose run params go to parameters it has: see `arguments`."""
    return _bound(params, inputs, run_params, told, () if task_type in GUARDED else None)


def arguments(
    function: Callable[..., Any],
    params: Mapping[str, Any],
    inputs: Mapping[str, Any],
    run_params: Mapping[str, Any],
    told: Mapping[str, str],
    ctx: object,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Call `function(*args, **kwargs)` with these. Run params it has no parameter for are left out."""
    has = signature(function)
    if has is None:
        return (), _bound(params, inputs, run_params, told, ())
    bound = _bound(params, inputs, run_params, told, _names(has))
    given = inspect.BoundArguments(has, _by_parameter(has, bound))
    if CONTEXT in has.parameters:
        given.arguments[CONTEXT] = ctx
    absent = [
        name for name, has_to_be in has.parameters.items() if _required(has_to_be) and name not in given.arguments
    ]
    if absent:
        raise PermanentFailure(f"nothing was given for parameter {absent[0]!r}")
    given.apply_defaults()
    return given.args, given.kwargs


@lru_cache(maxsize=1024)
def signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """The parameters of `function`; None when it does not tell (some built-in ones)."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def place(params: dict[str, Any], inputs: Mapping[str, Any]) -> None:
    """Put each input at its path in `params`, which is changed. Raises PermanentFailure when there is no such place."""
    for path, value in inputs.items():
        *way, last = (step.replace("~1", "/").replace("~0", "~") for step in path.split("/"))
        here: Any = params
        try:
            for step in way:
                here = here.setdefault(step, {}) if isinstance(here, dict) else here[_position(here, step)]
            here[last if isinstance(here, dict) else _position(here, last)] = value
        except (IndexError, TypeError, ValueError) as error:
            raise PermanentFailure(f"input {path!r} has no place in the params") from error


def is_placeholder(value: object) -> bool:
    """Only the run's params tell this value."""
    return isinstance(value, dict) and isinstance(value.get(PARAM), str)


def own(value: Any) -> Any:
    """`value` without the mark that the run's params do not replace it."""
    return value[FIXED] if _fixed(value) else value


def path(parent: str, step: str | int) -> str:
    """The path of `step` below `parent`, as keys of `inputs` write it."""
    return f"{parent}/{escaped(str(step))}"


def escaped(step: str) -> str:
    """One step of a path."""
    return step.replace("~", "~0").replace("/", "~1")


def _bound(
    params: Mapping[str, Any],
    inputs: Mapping[str, Any],
    run_params: Mapping[str, Any],
    told: Mapping[str, str],
    replaceable: Container[str] | None,
) -> dict[str, Any]:
    bound = {name: _filled(value, run_params, told) for name, value in params.items()}
    taken = {path.partition("/")[0] for path in inputs}
    for name, value in run_params.items():
        if (replaceable is None or name in replaceable) and escaped(name) not in taken and not _fixed(params.get(name)):
            bound[name] = _rendered(value, told)
    place(bound, inputs)
    return bound


def _filled(value: Any, run_params: Mapping[str, Any], told: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        if _fixed(value):
            return _filled(value[FIXED], run_params, told)
        if is_placeholder(value):
            return _rendered(_run_param(value, run_params), told)
        return {key: _filled(item, run_params, told) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, run_params, told) for item in value]
    return _rendered(value, told)


def _run_param(placeholder: dict[str, Any], run_params: Mapping[str, Any]) -> Any:
    name = placeholder[PARAM]
    if name in run_params:
        return run_params[name]
    if "default" in placeholder:
        return placeholder["default"]
    raise PermanentFailure(f"the run was started without the param {name!r}, which has no default")


def _rendered(value: Any, told: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _TEMPLATE.sub(lambda found: _fact(found[1], told), value) if "{{" in value else value
    if isinstance(value, dict):
        return {key: _rendered(item, told) for key, item in value.items()}
    if isinstance(value, list):
        return [_rendered(item, told) for item in value]
    return value


def _fact(name: str, told: Mapping[str, str]) -> str:
    if name not in told:
        if name == "map_index":
            raise PermanentFailure("the params use {{ map_index }}, but the task is not mapped")
        lacks = "such partition" if name.startswith("partition") else "window"
        raise PermanentFailure(f"the params use {{{{ {name} }}}}, but the run has no {lacks}")
    return told[name]


def _fixed(value: object) -> bool:
    return isinstance(value, dict) and len(value) == 1 and FIXED in value


def _position(here: list[Any], step: str) -> int:
    position = int(step)
    if position < 0 or str(position) != step:
        raise ValueError(step)
    return position


def _names(has: inspect.Signature) -> Container[str] | None:
    """The names a caller may give; None = any."""
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in has.parameters.values()):
        return None
    return {name for name in has.parameters if name != CONTEXT}


def _by_parameter(has: inspect.Signature, bound: dict[str, Any]) -> dict[str, Any]:
    """`bound` in the form of BoundArguments: a tuple for `*rest`, what has no parameter of its own in `**others`."""
    given: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in bound.items():
        parameter = has.parameters.get(name)
        if parameter is None or name == CONTEXT or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            others[name] = value
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            given[name] = tuple(value)
        else:
            given[name] = value
    takes_any = [name for name, one in has.parameters.items() if one.kind is inspect.Parameter.VAR_KEYWORD]
    if others and not takes_any:
        raise PermanentFailure(f"the function has no parameter {next(iter(others))!r}")
    return given | ({takes_any[0]: others} if others else {})


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty and parameter.kind not in _VARIADIC

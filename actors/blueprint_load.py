"""Blueprints from the files of a folder (`BLUEPRINTS_DIR`).

    simple_flow.py             every StateMachineBlueprint among its names
    review.yaml .yml .json     one blueprint
    other files, _* and .*     left out

A bad one raises with its file, its name and the reason, so that the start stops there. A Python file becomes a module
of a name of its own, so that it may be called like any other module; what lies beside it can be imported. Loading runs
the code in the files: it is for the operator's own. The server loads them once to publish their documents
(`blueprint_book.py`), the handlers' actor to run them (`handlers_actor.py`), and nobody else has to.
Source: jobs contract, section 7.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from actors.entrypoints import no_byte_code
from orchestrator.blueprint import Blueprint
from orchestrator.blueprint_checks import check_together
from orchestrator.blueprint_file import from_json, from_yaml
from orchestrator.blueprints import StateMachineBlueprint, blueprints_in
from orchestrator.errors import Invalid

SUFFIXES = (".py", ".yaml", ".yml", ".json")
_MODULE = "blueprint_file_"


@dataclass(frozen=True, slots=True)
class LoadedBlueprints:
    """What a folder holds."""

    blueprints: tuple[Blueprint, ...] = ()
    #: those in Python, by name
    code: dict[str, StateMachineBlueprint] = field(default_factory=dict)
    #: what only running them can tell
    warnings: tuple[str, ...] = ()


def load(folder: Path) -> LoadedBlueprints:
    """The blueprints in the files of `folder`, by file and then by place. Raises Invalid."""
    if not folder.is_dir():
        raise Invalid(f"{folder}: no such folder")
    found: dict[str, Blueprint] = {}
    code: dict[str, StateMachineBlueprint] = {}
    warnings: list[str] = []
    for file in _files(folder):
        for blueprint, source in _in_file(file):
            if found.setdefault(blueprint.name, blueprint) != blueprint:
                raise Invalid(f"{file}: another blueprint is called {blueprint.name!r} already")
            if source is not None and blueprint.name not in code:
                code[blueprint.name] = source
                warnings += [f"{file}: blueprint {blueprint.name!r}: {one}" for one in source.validate()]
    try:
        check_together(list(found.values()))
    except Invalid as error:
        raise _in(str(folder), error) from error
    return LoadedBlueprints(tuple(found.values()), code, tuple(warnings))


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.name[0] not in "._")


def _in_file(file: Path) -> Iterator[tuple[Blueprint, StateMachineBlueprint | None]]:
    """Every blueprint of a file, with the Python that it is made of. Raises Invalid."""
    try:
        if file.suffix != ".py":
            text = file.read_text(encoding="utf-8")
            yield (from_json(text) if file.suffix == ".json" else from_yaml(text)), None
            return
        written = blueprints_in(_module(file))
    except (Exception, SystemExit) as error:  # the author's code may raise anything
        raise _in(str(file), error) from error
    for one in written:
        try:
            yield one.compile(), one
        except Exception as error:
            raise _in(f"{file}: blueprint {one.name!r}", error) from error


def _in(where: str, error: BaseException) -> Invalid:
    if isinstance(error, Invalid):
        return Invalid(f"{where}: {error}", error.details)
    return Invalid(f"{where}: {type(error).__name__}: {error}")


def _module(file: Path) -> ModuleType:
    """The file, executed as a module that is new each time."""
    name = f"{_MODULE}{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise Invalid("cannot be imported")
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with no_byte_code():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module

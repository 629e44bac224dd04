"""Definitions from files: what `orchestrator dags deploy` and `up --dags` read.

    weather.py                 every `@dag` among its names; imported as module `weather`, its folder on sys.path
    sales.yaml .yml .json      one DAG, as over REST
    a folder                   all such files in it, in the order of their names; `_*` and `.*` are left out

This is the one module of the core that touches files and runs what it finds there: it is for the
operator's own files, never for what came over the network. Workers import the same modules by the same
names, so the folder has to be on their path too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from orchestrator.authoring import dags_in
from orchestrator.definition import Definition
from orchestrator.errors import Invalid, OrchestratorError

SUFFIXES = (".py", ".yaml", ".yml", ".json")


def load(path: Path) -> list[Definition]:
    """The definitions in a file or folder. Raises Invalid, which names the file, also when there are none."""
    if not path.exists():
        raise Invalid(f"{path}: no such file or folder")
    found = [definition for file in _files(path) for definition in _in_file(file)]
    if not found:
        raise Invalid(f"{path}: no DAG found")
    return _merged(path, found)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.name[0] not in "._")
    if path.suffix not in SUFFIXES:
        raise Invalid(f"{path}: expected one of {', '.join(SUFFIXES)}")
    return [path]


def _in_file(file: Path) -> list[Definition]:
    try:
        if file.suffix == ".py":
            return [dag.definition() for dag in dags_in(_module(file.resolve()))]
        return [_written(file)]
    except Invalid as error:
        raise Invalid(f"{file}: {error}", error.details) from error
    except OrchestratorError:
        raise
    except Exception as error:  # the author's code may raise anything
        raise Invalid(f"{file}: {type(error).__name__}: {error}") from error


def _written(file: Path) -> Definition:
    from orchestrator.spec import from_json, from_yaml

    text = file.read_text(encoding="utf-8")
    return from_json(text) if file.suffix == ".json" else from_yaml(text)


def _module(file: Path) -> ModuleType:
    """The module in `file`, imported under the file's own name."""
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    module = importlib.import_module(file.stem)
    if Path(module.__file__ or "").resolve() != file:
        raise Invalid(f"its name is taken: module {file.stem!r} is {module.__file__ or 'built in'}; rename the file")
    return module


def _merged(path: Path, found: Iterable[Definition]) -> list[Definition]:
    """Each DAG once: a file may import a DAG from another one."""
    by_id: dict[str, Definition] = {}
    for definition in found:
        if by_id.setdefault(definition.dag_id, definition) != definition:
            raise Invalid(f"{path}: two different DAGs are called {definition.dag_id!r}")
    return list(by_id.values())

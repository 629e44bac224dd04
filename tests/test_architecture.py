"""What the layout promises: who imports whom, what stays light, what survives Ray, what the README shows."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import orchestrator
from orchestrator import errors, events

ROOT = Path(__file__).parents[1]
#: modules of the core that are for the edge: they may import pydantic, networkx, croniter, httpx
EDGE = {
    "orchestrator.spec",
    "orchestrator.spec_form",
    "orchestrator.graph",
    "orchestrator.schedule",
    "orchestrator.client",
    "orchestrator.task_shape_form",
}
SAMPLE = {"str": "x", "int": 7, "tuple": (("field", "wrong"),), "float": 1.5}


def core_modules() -> Iterator[str]:
    for module in pkgutil.iter_modules(orchestrator.__path__, "orchestrator."):
        yield module.name


def python(code: str) -> str:
    """Standard output of `code` in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_core_imports_without_ray_or_a_redis_client() -> None:
    names = ", ".join(core_modules())
    loaded = python(f"import {names}, sys; print(*sorted(m for m in sys.modules if '.' not in m))").split()
    assert not {"ray", "redis", "fastapi", "starlette", "prometheus_client", "uvicorn"} & set(loaded)


def test_what_actors_import_of_the_core_is_light() -> None:
    names = ", ".join(name for name in core_modules() if name not in EDGE)
    loaded = python(f"import {names}, sys; print(*sorted(m for m in sys.modules if '.' not in m))").split()
    assert not {"pydantic", "networkx", "croniter", "yaml", "numpy"} & set(loaded)


def test_who_writes_workflows_does_not_load_the_client() -> None:
    loaded = python("import orchestrator, sys; print(*sys.modules)").split()
    assert not {"httpx", "orchestrator.client", "asyncio"} & set(loaded)


def test_processes_that_are_not_the_gateway_load_nothing_of_it() -> None:
    loaded = python("import actors.spawn, sys; print(*sys.modules)").split()
    assert not {"actors.jobs_holder", "actors.pipelines_holder", "cryptography", "lupa"} & set(loaded)


def test_settings_are_light_to_import() -> None:
    loaded = python("import actors.settings, actors.clock, sys; print(*sys.modules)").split()
    assert not {"pydantic", "ray", "redis", "networkx", "croniter", "yaml", "rich", "typer"} & set(loaded)


ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_with_its_facts(kind: type[Exception]) -> None:
    hints = typing.get_type_hints(kind.__init__)
    parameters = [p for p in inspect.signature(kind.__init__).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    values = [SAMPLE[(typing.get_origin(hints[p.name]) or hints[p.name]).__name__] for p in parameters[1:]]
    error = kind(*values)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.args, vars(copy), str(copy)) == (error.args, vars(error), str(error))


def test_every_error_belongs_to_one_family() -> None:
    ours = [kind for kind in ERRORS if issubclass(kind, errors.OrchestratorError)]
    families = {errors.Refused, errors.Unavailable, errors.Broken}
    for kind in set(ours) - families - {errors.OrchestratorError}:
        assert sum(issubclass(kind, family) for family in families) == 1, kind


def test_every_event_class_can_be_read_back() -> None:
    defined = {
        kind
        for _, kind in inspect.getmembers(events, inspect.isclass)
        if issubclass(kind, events.Event) and kind is not events.Event
    }
    assert defined == set(typing.get_args(events.AnyEvent))
    tags = [kind.__struct_config__.tag for kind in defined]
    assert len(set(tags)) == len(tags)
    msgspec.json.Decoder(events.AnyEvent)  # raises for a union it cannot tell apart


@pytest.mark.parametrize("package", ["orchestrator", "actors", "serve_app"])
def test_every_module_has_a_picture_and_every_package_its_types(package: str) -> None:
    folder = Path(importlib.import_module(package).__path__[0])
    assert (folder / "py.typed").exists()
    for file in folder.rglob("*.py"):
        tree = ast.parse(file.read_text())
        assert ast.get_docstring(tree) or not tree.body, f"{file} has no docstring"


def test_no_module_is_called_after_nothing() -> None:
    vague = {"utils", "util", "helpers", "common", "manager", "base", "misc"}
    for package in ("orchestrator", "actors", "serve_app", "examples", "tests"):
        assert not vague & {file.stem for file in (ROOT / package).rglob("*.py")}


def test_nothing_in_the_tree_knows_this_machine() -> None:
    foreign = re.compile(r"/(home|Users|root|work|opt)/(?!ann\b)\w+")
    tracked = [ROOT / name for name in ("README.md", "Makefile", "pyproject.toml", ".ci/run", "CONTRIBUTING.md")]
    packages = ("orchestrator", "actors", "serve_app", "examples")
    for file in [*tracked, *(source for name in packages for source in (ROOT / name).rglob("*.py"))]:
        assert not foreign.search(file.read_text()), file


def test_the_example_of_the_readme_is_a_dag(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "hello.py").write_text(code)
    told = python(f"""
import pathlib
from orchestrator.load import load
(hello,) = load(pathlib.Path({str(tmp_path)!r}))
print(hello.dag_id, *(task.id for task in hello.tasks))
""")
    assert told.split() == ["hello", "double", "double_2", "double_3", "total"]


def test_make_test_looks_wherever_a_test_starts_ray() -> None:
    [live] = [line for line in (ROOT / "Makefile").read_text().splitlines() if "-m 'ray and not slow" in line]
    folders = [ROOT / name for name in live.split() if name.startswith("tests/")]
    texts = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)}
    starting = [path for path, text in texts.items() if "pytest.mark.ray" in text]
    assert len(starting) > 10
    assert [
        path for path in starting if path.parent not in folders and not re.search(r"mark\.(chaos|slow)", texts[path])
    ] == []


def test_make_test_passes_over_slow_tests_alone() -> None:
    [ignored] = re.findall(r"--ignore=(\S+)", (ROOT / "Makefile").read_text())
    tests = re.findall(r"((?:^@.*\n|^[ )].*\n)*)^(?:async )?def (test_\w+)", (ROOT / ignored).read_text(), re.M)
    assert tests
    assert [name for marks, name in tests if "@pytest.mark.slow" not in marks] == []

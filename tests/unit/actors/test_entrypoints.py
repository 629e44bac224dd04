"""actors.entrypoints: code of the operator's folders, fresh after each deployment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.entrypoints import Entrypoints
from orchestrator.errors import PermanentFailure


@pytest.fixture
def dags(tmp_path: Path) -> Iterator[Path]:
    before = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = before[0]
    for name in set(sys.modules) - before[1]:
        del sys.modules[name]


def write(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(source)


def test_a_function_is_imported_once(dags: Path) -> None:
    write(dags, "deployed_a", "def f(): return 1\n")
    entrypoints = Entrypoints((str(dags),))
    assert entrypoints.resolve("deployed_a:f") is entrypoints.resolve("deployed_a:f")


def test_a_changed_source_is_imported_again(dags: Path) -> None:
    write(dags, "deployed_b", "def f(): return 1\n")
    entrypoints = Entrypoints((str(dags),))
    assert entrypoints.resolve("deployed_b:f")() == 1
    write(dags, "deployed_b", "def f(): return 2\n")
    assert entrypoints.resolve("deployed_b:f")() == 2


def test_a_change_in_an_imported_neighbour_counts(dags: Path) -> None:
    write(dags, "deployed_rates", "RATE = 1\n")
    write(dags, "deployed_c", "import deployed_rates\ndef f(): return deployed_rates.RATE\n")
    entrypoints = Entrypoints((str(dags),))
    assert entrypoints.resolve("deployed_c:f")() == 1
    write(dags, "deployed_rates", "RATE = 2\n")
    assert entrypoints.resolve("deployed_c:f")() == 2


def test_a_module_deployed_later_is_found(dags: Path) -> None:
    entrypoints = Entrypoints((str(dags / "dags"),))
    with pytest.raises(PermanentFailure, match="deployed_d"):
        entrypoints.resolve("deployed_d:f")
    (dags / "dags").mkdir()
    write(dags / "dags", "deployed_d", "class Made:\n    @staticmethod\n    def f(): return 'nested'\n")
    assert entrypoints.resolve("deployed_d:Made.f")() == "nested"


def test_a_broken_module_is_a_permanent_failure_until_it_is_mended(dags: Path) -> None:
    write(dags, "deployed_e", "def f(: return 1\n")
    entrypoints = Entrypoints((str(dags),))
    with pytest.raises(PermanentFailure, match="cannot be imported: SyntaxError"):
        entrypoints.resolve("deployed_e:f")
    write(dags, "deployed_e", "def f(): return 1\n")
    assert entrypoints.resolve("deployed_e:f")() == 1


def test_a_module_that_exits_is_a_permanent_failure(dags: Path) -> None:
    write(dags, "deployed_g", "raise SystemExit(1)\n")
    with pytest.raises(PermanentFailure, match="SystemExit"):
        Entrypoints((str(dags),)).resolve("deployed_g:f")

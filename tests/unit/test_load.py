"""Definitions from files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import Invalid
from orchestrator.load import load

PYTHON = """
from orchestrator import dag, task

@task
def {name}_task(): ...

@dag
def {name}():
    {name}_task()
"""


@pytest.fixture(autouse=True)
def _clean_imports() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def written(folder: Path, **files: str) -> Path:
    """`written(tmp_path, a_py="...")` writes a.py."""
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(text)
    return folder


def test_a_python_file_is_imported_under_its_own_name(tmp_path: Path) -> None:
    (definition,) = load(written(tmp_path, load_one_py=PYTHON.format(name="one")) / "load_one.py")
    assert definition.dag_id == "one"
    assert definition.tasks[0].entrypoint == "load_one:one_task"
    assert sys.modules["load_one"].one.definition() == definition
    assert load(tmp_path / "load_one.py") == [definition]


def test_a_folder_is_all_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    written(
        tmp_path,
        load_b_py=PYTHON.format(name="bee"),
        a_yaml="dag_id: a\nowner: o",
        c_json='{"dag_id": "c", "owner": "o"}',
        d_yml="dag_id: d\nowner: o",
        _private_yaml="broken: [",
        notes_txt="no DAG",
        load_helper_py="import load_b\nfrom load_b import bee\n",
    )
    assert [definition.dag_id for definition in load(tmp_path)] == ["a", "c", "d", "bee"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.yaml", "dag_id: a", r"x\.yaml: owner: is required"),
        ("x.json", "{", r"x\.json: malformed JSON"),
        ("x.yaml", b"\xff", r"x\.yaml: UnicodeDecodeError"),
        ("load_x.py", "1/0", r"load_x\.py: ZeroDivisionError: division by zero"),
        ("load_y.py", "def f(:", r"load_y\.py: SyntaxError"),
        ("load_z.py", "x = 1", r"load_z\.py: no DAG found"),
        ("x.toml", "", r"x\.toml: expected one of \.py, \.yaml, \.yml, \.json"),
        ("json.py", PYTHON.format(name="one"), r"json\.py: its name is taken: module 'json' is .*rename the file"),
    ],
)
def test_what_cannot_be_loaded_is_named(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(Invalid, match=message):
        load(tmp_path / name)


def test_the_details_of_a_refusal_are_kept(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        load(written(tmp_path, x_yaml="dag_id: a") / "x.yaml")
    assert caught.value.details == (("owner", "is required"),)


def test_a_missing_path_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no DAG found"):
        load(tmp_path)
    with pytest.raises(Invalid, match="no such file or folder"):
        load(tmp_path / "nowhere")


def test_two_dags_of_one_name_are_refused(tmp_path: Path) -> None:
    written(tmp_path, a_yaml="dag_id: a\nowner: o", b_yaml="dag_id: a\nowner: p")
    with pytest.raises(Invalid, match="two different DAGs are called 'a'"):
        load(tmp_path)

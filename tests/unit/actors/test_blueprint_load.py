"""Blueprints from a folder of files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from actors.blueprint_load import load
from orchestrator.blueprint import Lead
from orchestrator.errors import Invalid
from tests.blueprint_builders import SIMPLE_FLOW

PYTHON = """
from orchestrator.blueprints import StateMachineBlueprint

bp = StateMachineBlueprint(name="{name}", api_endpoint="/jobs/{name}", api_version="v1")

@bp.handler_for("start", is_start=True)
async def start(actions):
    actions.transition_to("{to}")
"""


def python(name: str, to: str = "finished") -> str:
    return PYTHON.format(name=name, to=to)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "blueprints"
    path.mkdir()
    return path


def test_every_blueprint_of_every_file_is_loaded(folder: Path) -> None:
    (folder / "a_flow.py").write_text(python("one") + python("two").replace("bp", "other"))
    (folder / "simple.yaml").write_text(SIMPLE_FLOW)
    (folder / "later.yml").write_text(SIMPLE_FLOW.replace("simple_flow", "later"))
    body = {"apiVersion": "orchestrator/v1", "kind": "Blueprint", "name": "plain"}
    (folder / "plain.json").write_text(json.dumps(body | {"states": {"s": {"start": True, "end": True}}}))
    (folder / "notes.txt").write_text("not a blueprint")
    (folder / "_draft.py").write_text("raise RuntimeError")
    (folder / ".hidden.yaml").write_text("x")
    loaded = load(folder)
    assert [one.name for one in loaded.blueprints] == ["one", "two", "later", "plain", "simple_flow"]
    assert sorted(loaded.code) == ["one", "two"]
    assert loaded.blueprints[0].states["start"].leads == (Lead("finished"),)
    assert loaded.warnings == ()


def test_an_empty_folder_holds_none(folder: Path) -> None:
    assert load(folder).blueprints == ()


def test_a_file_may_be_called_like_a_module_that_there_is(folder: Path) -> None:
    before = sys.modules["json"]
    (folder / "json.py").write_text(python("one"))
    (folder / "two-flows.v1.py").write_text(python("two"))
    assert [one.name for one in load(folder).blueprints] == ["one", "two"]
    assert sys.modules["json"] is before


def test_a_file_can_import_what_lies_beside_it(folder: Path) -> None:
    (folder / "_b_lib_for_test.py").write_text("NAME = 'imported'")
    (folder / "a.py").write_text("from _b_lib_for_test import NAME\n" + python("one").replace('"one"', "NAME"))
    assert [one.name for one in load(folder).blueprints] == ["imported"]


def test_a_blueprint_that_another_file_imports_counts_once(folder: Path) -> None:
    (folder / "b_first_for_test.py").write_text(python("one"))
    (folder / "b_second_for_test.py").write_text("from b_first_for_test import bp as again\n" + python("two"))
    assert [one.name for one in load(folder).blueprints] == ["one", "two"]


def test_a_file_is_read_anew_each_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = folder / "flow.py"
    file.write_text(python("one", "finished"))
    first = load(folder).blueprints[0]
    file.write_text(python("one", "failed"))
    second = load(folder).blueprints[0]
    assert (first.states["start"].leads, second.states["start"].leads) == ((Lead("finished"),), (Lead("failed"),))
    assert first.content_hash != second.content_hash
    assert not (folder / "__pycache__").exists()


def test_warnings_name_file_and_blueprint(folder: Path) -> None:
    text = python("one").replace('"finished"', "str(id(actions))")
    (folder / "flow.py").write_text(
        text + '\n@bp.handler_for("lost")\ndef lost(actions): actions.transition_to("finished")'
    )
    (warning,) = load(folder).warnings
    assert warning.endswith("flow.py: blueprint 'one': state 'lost' is reached only if the code of 'start' leads there")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("flow.py", python("one", "nowhere"), "flow.py: blueprint 'one': states/start: leads to the unknown state"),
        ("flow.py", python("a b"), "flow.py: blueprint 'a b': name: must match"),
        (
            "flow.py",
            python("x").replace("/jobs/x", "/workers"),
            "blueprint 'x': api_endpoint: /api/v1/workers is reser",
        ),
        ("flow.py", "import nothing_of_that_name", "flow.py: ModuleNotFoundError: No module named"),
        ("flow.py", "def (", "flow.py: SyntaxError"),
        ("flow.py", "raise SystemExit(3)", "flow.py: SystemExit: 3"),
        ("flow.py", python("x") + "\nbp.handler_for('start')(start)", "flow.py: state 'start' has two handlers"),
        ("flow.yaml", "kind: Blueprint", "flow.yaml: apiVersion: is required"),
        ("flow.json", "{", "flow.json: malformed JSON"),
        ("flow.yaml", SIMPLE_FLOW.replace("state", "x"), "flow.yaml: xs: unknown key"),
    ],
)
def test_a_bad_file_is_told_with_its_name_and_the_reason(folder: Path, name: str, text: str, why: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(Invalid, match=why.replace("(", r"\(")):
        load(folder)


def test_text_that_is_not_utf_8_is_told(folder: Path) -> None:
    (folder / "flow.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match=r"flow\.yaml: UnicodeDecodeError"):
        load(folder)


def test_names_and_paths_are_unique_over_all_files(folder: Path) -> None:
    (folder / "a.py").write_text(python("simple_flow"))
    (folder / "b.yaml").write_text(SIMPLE_FLOW)
    with pytest.raises(Invalid, match=r"b.yaml: another blueprint is called 'simple_flow' already"):
        load(folder)
    (folder / "a.py").write_text(python("other").replace("/jobs/other", "/jobs/simple_flow"))
    with pytest.raises(Invalid, match="'other' and 'simple_flow' are both mounted at /api/v1/jobs/simple_flow"):
        load(folder)


def test_the_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no such folder"):
        load(tmp_path / "nowhere")

"""The files of plans: listed, read, written whole, and never outside of their root."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from actors.plan_store import PlanStore
from orchestrator import plan_status
from orchestrator.errors import Conflict, NotFound, Unavailable
from orchestrator.plan_entry import Completed, Started
from orchestrator.plan_status import PlanStatus
from tests.plans import DEMO

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BAD_NAMES = [
    "",
    ".",
    "..",
    "../demo",
    "a/b",
    "/etc/passwd",
    ".hidden",
    "-x",
    "a..b",
    "a b",
    "a\n",
    "ä",
    "a\0b",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A plans root with the demo, and beside it what must never be reached."""
    (tmp_path / "secret.md").write_text("# Secret\n## Phase 1: S\n- [ ] 1.1 secret")
    folder = tmp_path / "root" / "docs" / "plans"
    folder.mkdir(parents=True)
    (folder / "demo.md").write_text(DEMO)
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> PlanStore:
    return PlanStore(root)


def put(root: Path, path: str, content: str = "") -> Path:
    """A file beneath the root, as another program writes it."""
    file = root / "docs" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def fresh(store: PlanStore, name: str = "demo") -> PlanStatus:
    return plan_status.new(store.document(name), "docs/plans/demo.md", AT)


def missing(call: Callable[..., object], *arguments: str) -> tuple[str, str]:
    """Kind and name of what was not found."""
    with pytest.raises(NotFound) as caught:
        call(*arguments)
    return caught.value.kind, caught.value.name


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# ── plans ──


def test_a_plan_nobody_worked_on_is_listed_without_status_and_output(store: PlanStore, root: Path) -> None:
    """Example 1 of section 9."""
    path = root / "docs" / "plans" / "demo.md"
    os.utime(path, ns=(0, 1_767_225_600_123_456_000))
    (shown,) = store.plans()
    assert (shown.name, shown.path) == ("demo", str(path))
    assert (shown.has_status, shown.output_dir) == (False, None)
    assert shown.last_modified == datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
    assert store.plan("demo") == shown


def test_a_plan_with_outputs_says_where_they_are(store: PlanStore, root: Path) -> None:
    put(root, "plan-outputs/demo/findings/1-1.md")
    output = str(root / "docs" / "plan-outputs" / "demo")
    assert (store.plan("demo").has_status, store.plan("demo").output_dir) == (False, output)
    store.write_status("demo", fresh(store))
    assert (store.plan("demo").has_status, store.plan("demo").output_dir) == (True, output)


def test_plans_are_the_markdown_files_of_the_folder_by_name(store: PlanStore, root: Path) -> None:
    for path in ("B.md", "a.b-c_1.md", "x.txt", ".md", ".x.md", "a b.md", "a..b.md", "deep/y.md", "z.MD"):
        put(root, f"plans/{path}")
    (root / "docs" / "plans" / "folder.md").mkdir()
    assert [shown.name for shown in store.plans()] == ["B", "a.b-c_1", "demo"]


def test_a_root_without_plans_has_none(tmp_path: Path) -> None:
    assert PlanStore(tmp_path).plans() == []
    assert PlanStore(tmp_path / "nowhere").plans() == []


def test_a_relative_root_gives_absolute_paths(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "docs")
    assert PlanStore(Path("..")).plan("demo").path == str(root / "docs" / "plans" / "demo.md")


def test_a_plan_is_read_as_a_document(store: PlanStore, root: Path) -> None:
    assert store.document("demo").title == "Demo"
    put(root, "plans/bare.md", "## Phase 1: A\n- [ ] 1.1 a")
    assert store.document("bare").title == "bare"
    (root / "docs" / "plans" / "bytes.md").write_bytes(b"\xef\xbb\xbf# T\xff\r\n## Phase 1: A\r\n- [ ] 1.1 a\r\n")
    assert store.document("bytes").title == "T\ufffd"
    assert [task.description for task in store.document("bytes").tasks] == ["a"]


def test_an_unknown_plan_is_not_found_by_any_question(store: PlanStore) -> None:
    """Example 2 of section 9."""
    for ask in (store.plan, store.document, store.status, store.status_view, store.findings):
        assert missing(ask, "nope") == ("plan", "nope")
    assert missing(store.finding, "nope", "1.1") == ("plan", "nope")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_an_unknown_plan(store: PlanStore, root: Path, name: str) -> None:
    before = everything(root.parent)
    for ask in (store.plan, store.document, store.status, store.findings, store.stamps):
        assert missing(ask, name) == ("plan", name)
    with pytest.raises(NotFound):
        store.write_status(name, fresh(store))
    with pytest.raises(NotFound):
        store.write_finding(name, "1.1", "text")
    assert everything(root.parent) == before


def test_a_name_too_long_for_the_system_is_an_unknown_plan(store: PlanStore) -> None:
    long = "x" * 300
    assert missing(store.document, long) == ("plan", long)
    assert store.stamps(long) == (None, None)


# ── status ──


def test_a_plan_without_status_says_so(store: PlanStore) -> None:
    assert missing(store.status, "demo") == ("status", "demo")
    assert missing(store.status_view, "demo") == ("status", "demo")


def test_what_was_written_is_read(store: PlanStore, root: Path) -> None:
    status = plan_status.apply(fresh(store), Started("1.1", AT), Completed("1.1", AT + timedelta(seconds=1)))
    store.write_status("demo", status)
    assert store.status("demo") == status
    assert everything(root / "docs" / "plan-outputs") == {"demo", "demo/status.json"}


def test_the_view_of_a_status_has_the_plans_own_words(store: PlanStore, root: Path) -> None:
    store.write_status("demo", fresh(store))
    shown = store.status_view("demo")
    assert (shown.plan_name, shown.plan_path) == ("demo", str(root / "docs" / "plans" / "demo.md"))
    assert shown.tasks[2].description == "Write the file (depends: 1.1, 1.2)"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"planPath":"x","planName":"x","createdAt":"x"}'])
def test_a_malformed_status_is_absent_and_is_kept_aside_before_it_is_overwritten(
    store: PlanStore, root: Path, content: str
) -> None:
    path = put(root, "plan-outputs/demo/status.json", content)
    assert missing(store.status, "demo") == ("status", "demo")
    assert store.plan("demo").has_status is False
    store.write_status("demo", fresh(store))
    store.write_status("demo", fresh(store))
    assert path.with_name("status.json.bak").read_text() == content
    assert store.status("demo") == fresh(store)


def test_a_well_formed_status_is_overwritten_without_a_copy(store: PlanStore, root: Path) -> None:
    store.write_status("demo", fresh(store))
    store.write_status("demo", fresh(store))
    assert everything(root / "docs" / "plan-outputs") == {"demo", "demo/status.json"}


def test_a_reader_never_sees_half_a_status(store: PlanStore, root: Path) -> None:
    texts = ["a" * 300_000, "b" * 300_000]
    store.write_finding("demo", "1.1", texts[0])
    writers = [
        threading.Thread(target=lambda text=text: [store.write_finding("demo", "1.1", text) for _ in range(20)])
        for text in texts
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert store.finding("demo", "1.1") in texts
    assert everything(root / "docs" / "plan-outputs") == {"demo", "demo/findings", "demo/findings/1-1.md"}


def test_what_a_crash_left_behind_is_in_nobodys_way(store: PlanStore, root: Path) -> None:
    put(root, f"plan-outputs/demo/.status.json.{os.getpid()}-0.new", "half")
    store.write_status("demo", fresh(store))
    assert store.status("demo") == fresh(store)


def test_a_failed_write_leaves_everything_as_it_was(store: PlanStore, root: Path) -> None:
    put(root, "plan-outputs/demo/status.json/file")  # a folder is in the way
    before = everything(root)
    with pytest.raises(Unavailable, match=r"cannot write .*status\.json"):
        store.write_status("demo", fresh(store))
    assert everything(root) == before


def test_files_have_the_permissions_of_any_new_file(store: PlanStore, root: Path) -> None:
    plain = put(root, "plain")
    store.write_status("demo", fresh(store))
    written = root / "docs" / "plan-outputs" / "demo" / "status.json"
    assert written.stat().st_mode == plain.stat().st_mode


# ── stamps ──


def test_a_stamp_tells_who_else_wrote(store: PlanStore, root: Path) -> None:
    assert store.stamps("nope") == (None, None)
    mine = store.write_status("demo", fresh(store))
    assert store.stamps("demo").status == mine
    plan_before = store.stamps("demo").plan
    path = root / "docs" / "plan-outputs" / "demo" / "status.json"
    path.write_bytes(path.read_bytes() + b"\n")
    assert store.stamps("demo").status != mine
    assert store.stamps("demo").plan == plan_before
    assert store.write_status("demo", fresh(store)) != mine


# ── findings ──


def test_a_finding_is_written_with_dashes_and_found_by_its_id(store: PlanStore, root: Path) -> None:
    """Example 4 of section 9."""
    assert store.write_finding("demo", "1.1", "Größe: 5\n") == "docs/plan-outputs/demo/findings/1-1.md"
    path = root / "docs" / "plan-outputs" / "demo" / "findings" / "1-1.md"
    os.utime(path, ns=(0, 1_767_323_047_000_000_000))
    (shown,) = store.findings("demo")
    assert (shown.task_id, shown.path, shown.size_bytes) == ("1.1", str(path), 11)
    assert shown.last_modified == datetime(2026, 1, 2, 3, 4, 7, tzinfo=UTC)
    assert store.finding("demo", "1.1") == "Größe: 5\n"
    assert missing(store.finding, "demo", "9.9") == ("finding", "9.9")


def test_both_spellings_are_found_the_dotted_first(store: PlanStore, root: Path) -> None:
    put(root, "plan-outputs/demo/findings/1-1.md", "dashed")
    put(root, "plan-outputs/demo/findings/1.2.3.md", "dotted")
    put(root, "plan-outputs/demo/findings/1-2-3.md", "dashed")
    assert store.finding("demo", "1.1") == "dashed"
    assert store.finding("demo", "1.2.3") == "dotted"
    assert [(shown.task_id, Path(shown.path).name) for shown in store.findings("demo")] == [
        ("1.1", "1-1.md"),
        ("1.2.3", "1.2.3.md"),
        ("1.2.3", "1-2-3.md"),
    ]


def test_findings_sort_by_task_id_as_numbers(store: PlanStore, root: Path) -> None:
    for stem in ("10-1", "1-10", "1.9", "1-2-10", "1-2-9", "1-2", "notes", "a-1"):
        put(root, f"plan-outputs/demo/findings/{stem}.md")
    put(root, "plan-outputs/demo/findings/1-1.txt")
    assert [shown.task_id for shown in store.findings("demo")] == [
        "1.2",
        "1.2.9",
        "1.2.10",
        "1.9",
        "1.10",
        "10.1",
        "a-1",
        "notes",
    ]


def test_a_plan_without_findings_has_none(store: PlanStore, root: Path) -> None:
    assert store.findings("demo") == []
    put(root, "plan-outputs/demo/findings", "a file")
    assert store.findings("demo") == []


@pytest.mark.parametrize("task_id", BAD_NAMES)
def test_a_task_id_that_is_none_has_no_finding(store: PlanStore, root: Path, task_id: str) -> None:
    put(root, "plan-outputs/demo/findings/1-1.md")
    before = everything(root.parent)
    assert missing(store.finding, "demo", task_id) == ("finding", task_id)
    with pytest.raises(NotFound):
        store.write_finding("demo", task_id, "text")
    assert everything(root.parent) == before


# ── the root ──


def test_a_link_out_of_the_plans_folder_is_no_plan(store: PlanStore, root: Path) -> None:
    folder = root / "docs" / "plans"
    (folder / "out.md").symlink_to(root.parent / "secret.md")
    (folder / "up.md").symlink_to(put(root, "elsewhere.md"))
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "broken.md").symlink_to(folder / "nothing.md")
    (folder / "alias.md").symlink_to("demo.md")
    assert [shown.name for shown in store.plans()] == ["alias", "demo"]
    assert store.document("alias").title == "Demo"
    for name in ("out", "up", "loop", "broken"):
        assert missing(store.document, name) == ("plan", name)


def test_a_plans_folder_outside_of_the_root_is_empty(tmp_path: Path, root: Path) -> None:
    (tmp_path / "other" / "docs").mkdir(parents=True)
    (tmp_path / "other" / "docs" / "plans").symlink_to(root / "docs" / "plans")
    store = PlanStore(tmp_path / "other")
    assert store.plans() == []
    assert missing(store.document, "demo") == ("plan", "demo")


def test_a_root_may_itself_be_a_link(tmp_path: Path, root: Path) -> None:
    (tmp_path / "current").symlink_to(root)
    store = PlanStore(tmp_path / "current")
    assert store.plan("demo").path == str(tmp_path / "current" / "docs" / "plans" / "demo.md")
    store.write_status("demo", fresh(store))
    assert (root / "docs" / "plan-outputs" / "demo" / "status.json").is_file()


def test_outputs_that_lead_out_of_the_root_are_neither_read_nor_written(store: PlanStore, root: Path) -> None:
    outside = root.parent / "outside"
    (outside / "findings").mkdir(parents=True)
    (outside / "status.json").write_bytes(plan_status.to_bytes(fresh(store)))
    (outside / "findings" / "1-1.md").write_text("secret")
    (root / "docs" / "plan-outputs").mkdir()
    (root / "docs" / "plan-outputs" / "demo").symlink_to(outside)
    before = everything(outside)
    assert missing(store.status, "demo") == ("status", "demo")
    assert store.plan("demo").output_dir is None
    assert store.findings("demo") == []
    assert missing(store.finding, "demo", "1.1") == ("finding", "1.1")
    with pytest.raises(Conflict, match="leads out of"):
        store.write_status("demo", fresh(store))
    with pytest.raises(Conflict, match="leads out of"):
        store.write_finding("demo", "1.1", "text")
    assert everything(outside) == before


def test_files_that_lead_out_are_replaced_not_followed(store: PlanStore, root: Path) -> None:
    secret = root.parent / "secret.md"
    folder = root / "docs" / "plan-outputs" / "demo" / "findings"
    folder.mkdir(parents=True)
    (folder / "1-1.md").symlink_to(secret)
    (folder.parent / "status.json").symlink_to(secret)
    assert missing(store.finding, "demo", "1.1") == ("finding", "1.1")
    store.write_finding("demo", "1.1", "mine")
    store.write_status("demo", fresh(store))
    assert store.finding("demo", "1.1") == "mine"
    assert secret.read_text().startswith("# Secret")


def test_a_pipe_in_the_place_of_a_file_is_no_file(store: PlanStore, root: Path) -> None:
    os.mkfifo(root / "docs" / "plans" / "pipe.md")
    assert [shown.name for shown in store.plans()] == ["demo"]
    assert missing(store.document, "pipe") == ("plan", "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_unavailable_not_absent(store: PlanStore, root: Path) -> None:
    (root / "docs" / "plans" / "demo.md").chmod(0)
    with pytest.raises(Unavailable, match=r"cannot read .*demo\.md"):
        store.document("demo")


def test_what_the_system_refuses_is_unavailable(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("actors.plan_store._content", refuse)
    with pytest.raises(Unavailable, match=r"cannot read .*demo\.md: Permission denied"):
        store.document("demo")


def test_status_json_reads_for_other_programs(store: PlanStore, root: Path) -> None:
    store.write_status("demo", fresh(store))
    text = (root / "docs" / "plan-outputs" / "demo" / "status.json").read_text()
    assert text.startswith('{\n  "')
    assert msgspec.json.decode(text)["summary"]["totalTasks"] == 4

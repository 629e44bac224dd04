"""actors.bundle_store: bundles are kept whole, checked, and unpacked on whatever node needs them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import actors.bundle_store as module
from actors.bundle_store import BundleStore, requirements_in
from orchestrator import bundle
from orchestrator.errors import Invalid, NotFound, Unavailable
from tests.bundle_builders import files, kept


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path)


def test_what_was_put_comes_back_and_a_second_time_nothing_happens(store: BundleStore) -> None:
    packed = bundle.pack(files())
    name = bundle.id_of(packed)
    assert not store.has(name)
    assert store.put(name, packed)
    assert not store.put(name, packed)
    assert store.packed(name) == packed
    assert store.has(name)


def test_content_under_another_id_is_refused(store: BundleStore) -> None:
    with pytest.raises(Invalid):
        store.put("0" * 64, bundle.pack(files()))
    with pytest.raises(NotFound):
        store.packed("0" * 64)


@pytest.mark.parametrize("name", ["", "../x", "A" * 64, "0" * 63])
def test_what_is_no_id_is_nothing_that_is_kept(store: BundleStore, name: str) -> None:
    with pytest.raises(NotFound):
        store.packed(name)


def test_a_damaged_bundle_is_never_used(store: BundleStore, tmp_path: Path) -> None:
    name = kept(tmp_path)
    file = tmp_path / "bundles" / f"{name}.zip"
    for damage in (file.read_bytes()[:-40], bundle.pack(files("two"))):
        file.write_bytes(damage)
        with pytest.raises(Unavailable, match="damaged"):
            store.unpacked(name)


def test_what_was_lost_of_an_unpacked_bundle_is_made_good(store: BundleStore, tmp_path: Path) -> None:
    name = kept(tmp_path)
    folder = store.unpacked(name)
    (folder / "helper.py").write_text("")
    (folder / "lib" / "late.py").unlink()
    again = store.unpacked(name)
    assert again == folder
    assert {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.py")} == files()
    assert [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] == [name]


def test_many_workers_unpack_at_once(store: BundleStore, tmp_path: Path) -> None:
    name = kept(tmp_path)
    found: list[Any] = []

    def unpack() -> None:
        try:
            found.append(store.unpacked(name))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=unpack) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {tmp_path / "bundles" / "unpacked" / name}


def test_what_is_removed_is_gone_from_the_node_too(store: BundleStore, tmp_path: Path) -> None:
    name = kept(tmp_path)
    folder = store.unpacked(name)
    store.remove(name)
    store.remove(name)
    assert not folder.exists()
    with pytest.raises(NotFound):
        store.unpacked(name)


def test_nodes_without_a_common_disk_share_a_url(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    url = f"memory://bundles-{tmp_path.name}"
    one, other = BundleStore(tmp_path / "one", url), BundleStore(tmp_path / "other", url)
    packed = bundle.pack(files())
    name = bundle.id_of(packed)
    BundleStore(tmp_path / "one").put(name, packed)  # as the command line of that machine leaves it
    with pytest.raises(NotFound):
        other.packed(name)
    one.publish(name)
    assert other.packed(name) == packed
    one.remove(name)
    other.folder.joinpath(f"{name}.zip").unlink()
    with pytest.raises(NotFound):
        other.packed(name)


def test_a_store_that_does_not_answer_is_told_apart_from_one_without_the_bundle(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    store = BundleStore(tmp_path, "memory://somewhere")
    store._remote = lambda _: (Broken(), "x")  # type: ignore[assignment,method-assign,return-value]  # a stand-in, in this one object
    with pytest.raises(Unavailable):
        store.packed("0" * 64)
    with pytest.raises(Unavailable):
        store.has("0" * 64)


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_a_damaged_bundle_is_made_good_by_who_sends_it_again(tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("fsspec")
    url = f"memory://half-{tmp_path.name}" if scheme == "memory" else f"file://{tmp_path}/shared"
    packed = bundle.pack(files())
    name = bundle.id_of(packed)
    one, other = BundleStore(tmp_path / "one", url), BundleStore(tmp_path / "other", url)
    one._send(name, packed[: len(packed) // 2])  # a kill in the middle, where a store writes in place
    with pytest.raises(Unavailable, match="damaged"):
        other.packed(name)
    assert one.put(name, packed)
    assert not one.put(name, packed)
    assert other.packed(name) == packed
    one._send(name, packed[:10])
    one.publish(name)
    assert BundleStore(tmp_path / "third", url).packed(name) == packed


def test_a_damaged_zip_is_made_good_by_who_sends_it_again(store: BundleStore, tmp_path: Path) -> None:
    name = kept(tmp_path)
    (tmp_path / "bundles" / f"{name}.zip").write_bytes(b"PK")
    assert kept(tmp_path) == name
    assert store.unpacked(name).is_dir()


def test_a_damaged_bundle_goes_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    store = BundleStore(tmp_path, f"memory://gone-{tmp_path.name}")
    name = bundle.id_of_files(files())
    store._send(name, b"PK")
    assert store.take(name) is None
    assert not store.has(name)


def test_what_somebody_else_removes_meanwhile_is_gone_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory")
    store = BundleStore(tmp_path, f"memory://both-{tmp_path.name}")
    name = bundle.id_of_files(files())
    store.put(name, bundle.pack(files()))
    monkeypatch.setattr(memory.MemoryFileSystem, "exists", lambda *_: True)  # as a listing that is late
    store.remove(name)
    store.remove(name)
    assert not (store.folder / f"{name}.zip").exists()


def test_a_full_disk_is_told_and_nothing_is_left_of_what_did_not_fit(
    store: BundleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = kept(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(Unavailable, match="no space left"):
            kept(tmp_path, "two")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(Unavailable, match="no space left"):
            store.unpacked(name)
    left = {entry.name for entry in (tmp_path / "bundles").rglob("*")}
    assert left == {f"{name}.zip", "unpacked", f"{name}.lock"}


def full(*_: object) -> None:
    raise OSError("no space left")


def test_what_a_kill_left_half_written_goes_after_a_while(store: BundleStore, tmp_path: Path) -> None:
    kept(tmp_path)
    old, young = tmp_path / "bundles/.aside-x.new", tmp_path / "bundles/.aside-y.new"
    for each in (old, young):
        each.touch()
    os.utime(old, (1.0, 1.0))
    kept(tmp_path, "two")
    assert (old.exists(), young.exists()) == (False, True)


class Broken:
    """A file system that is down."""

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> None:
            raise RuntimeError("no route")

        return call


# ── requirements ──


PIP = """
echo "$@" >>"$0.asked"
while [ $# -gt 0 ]; do
    case $1 in --target) target=$2 ;; --constraint) cp "$2" "$0.pins" ;; esac
    shift
done
[ -e "$0.slow" ] && sleep 1
[ -e "$0.fails" ] && cat "$0.fails" && exit 1
touch "$target/made.py"
"""


class Pip:
    """Stands for pip: notes what it was asked, and fails or takes its time when told to."""

    def __init__(self, script: Path) -> None:
        self._script = script
        script.write_text(PIP)

    def file(self, name: str) -> Path:
        return self._script.with_name(f"{self._script.name}.{name}")

    @property
    def calls(self) -> int:
        return len(self.file("asked").read_text().splitlines()) if self.file("asked").exists() else 0

    @property
    def command(self) -> list[str]:
        return ["sh", str(self._script)]


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pip:
    pip = Pip(tmp_path / "pip")
    monkeypatch.setattr(module, "_installer", lambda: pip.command)
    return pip


def installed(store: BundleStore, tmp_path: Path, requirements: str, version: str = "one") -> Path | None:
    name = kept(tmp_path, version, **{"requirements.txt": requirements})
    return store.packages(name, store.unpacked(name))


def test_what_asks_for_nothing_needs_no_installation(store: BundleStore, tmp_path: Path, pip: Pip) -> None:
    assert installed(store, tmp_path, "# nothing\n\n  # at all") is None
    assert pip.calls == 0


def test_installers_see_no_secrets_of_ours(
    store: BundleStore, tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_SECRET_KEY", "ours")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index")
    script = PIP + 'echo "[$ORCHESTRATOR_SECRET_KEY] $PIP_INDEX_URL" >"$0.seen"\n'
    (tmp_path / "pip").write_text(script)
    installed(store, tmp_path, "one")
    assert pip.file("seen").read_text() == "[] https://index\n"


def test_packages_are_on_the_disk_before_they_count_as_installed(
    store: BundleStore, tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    seen = tmp_path / "seen"
    (programs / "sync").write_text(f'#!/bin/sh\nls {tmp_path}/bundles/packages "$2/site" >>{seen}\n')
    (programs / "sync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    target = installed(store, tmp_path, "one")
    assert target is not None
    assert "made.py" in seen.read_text()
    assert target.name not in seen.read_text().split()


def test_the_same_requirements_are_installed_once(store: BundleStore, tmp_path: Path, pip: Pip) -> None:
    one = installed(store, tmp_path, "numpy==2.0\n")
    assert one is not None
    assert (one / "made.py").exists()
    assert installed(store, tmp_path, "numpy==2.0  # why\n", "two") == one
    assert installed(store, tmp_path, "numpy==2.1\n") != one
    assert pip.calls == 2
    assert sorted(entry.suffix for entry in one.parent.iterdir()) == ["", "", ".lock", ".lock"]


def test_requirements_that_are_files_or_options_belong_to_their_bundle(
    store: BundleStore, tmp_path: Path, pip: Pip
) -> None:
    for line in ("./wheels/a.whl", "-r more.txt", "--index-url https://x/"):
        assert installed(store, tmp_path, line) != installed(store, tmp_path, line, "two")


def test_what_our_own_code_stands_on_is_pinned(store: BundleStore, tmp_path: Path, pip: Pip) -> None:
    assert installed(store, tmp_path, "msgspec\n") is not None
    assert "msgspec==" in pip.file("pins").read_text()


def test_what_pip_refuses_is_told_and_leaves_nothing(store: BundleStore, tmp_path: Path, pip: Pip) -> None:
    pip.file("fails").write_text("Looking\nERROR: No matching distribution found for nosuch==1\n")
    with pytest.raises(Invalid, match="No matching distribution found for nosuch==1") as refused:
        installed(store, tmp_path, "nosuch==1\n")
    assert refused.value.details[0][0] == "requirements.txt"
    folder = tmp_path / "bundles" / "packages"
    assert [entry.suffix for entry in folder.iterdir()] == [".lock"]
    pip.file("fails").unlink()
    assert installed(store, tmp_path, "nosuch==1\n") is not None, "it is tried again"


def test_an_installation_that_takes_too_long_is_ended(
    store: BundleStore, tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INSTALL_S", 0.2)
    pip.file("slow").touch()
    with pytest.raises(Invalid, match="not installed within"):
        installed(store, tmp_path, "a\n")


def test_an_installation_outlives_the_worker_that_waits_for_it(store: BundleStore, tmp_path: Path, pip: Pip) -> None:
    pip.file("slow").touch()
    name = kept(tmp_path, **{"requirements.txt": "a\n"})
    folder = store.unpacked(name)
    code = f"""
from pathlib import Path
import actors.bundle_store as module
module._installer = lambda: {pip.command!r}
module.BundleStore({str(tmp_path)!r}).packages({name!r}, Path({str(folder)!r}))
"""
    worker = subprocess.Popen([sys.executable, "-c", code])
    while not pip.calls:
        time.sleep(0.01)
    worker.kill()
    worker.wait()
    packages = store.packages(name, folder)
    assert packages is not None
    assert (packages / "made.py").exists()
    assert pip.calls == 1


def test_what_nobody_used_for_long_leaves_the_node(store: BundleStore, tmp_path: Path, pip: Pip) -> None:
    old, used = installed(store, tmp_path, "a\n"), installed(store, tmp_path, "b\n")
    assert old is not None
    assert used is not None
    os.utime(old, (0, 0))
    assert installed(store, tmp_path, "c\n") is not None
    assert (old.exists(), used.exists()) == (False, True)


def test_comments_and_blank_lines_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a==1 # x\n\n#b\nc @ https://h/c.whl#sha256=1\n")
    assert requirements_in(tmp_path) == ["a==1", "c @ https://h/c.whl#sha256=1"]
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xff")
    with pytest.raises(Invalid, match=r"requirements\.txt"):
        requirements_in(tmp_path)


@pytest.mark.slow
def test_two_bundles_have_two_versions_of_a_package(store: BundleStore, tmp_path: Path) -> None:
    places = [installed(store, tmp_path, f"iniconfig=={version}\n") for version in ("1.1.1", "2.0.0")]
    told = [
        subprocess.run(
            [sys.executable, "-c", "import importlib.metadata as m; print(m.version('iniconfig'))"],
            env={**os.environ, "PYTHONPATH": str(place)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for place in places
    ]
    assert told == ["1.1.1", "2.0.0"]
    with pytest.raises(Invalid, match="surely-not-a-package-of-anybody"):
        installed(store, tmp_path, "surely-not-a-package-of-anybody==1\n")

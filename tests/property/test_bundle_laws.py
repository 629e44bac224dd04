"""Laws of bundles: the id depends on paths and contents alone, and what is unpacked is what was packed."""

from __future__ import annotations

import io
import random
import tempfile
import zipfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bundle_store import BundleStore
from orchestrator import bundle
from orchestrator.errors import Invalid

_names = st.text(st.sampled_from("abAB._-é0"), min_size=1, max_size=6)
_paths = st.lists(_names, min_size=1, max_size=3).map("/".join)
_files = st.dictionaries(_paths, st.binary(max_size=200), min_size=1, max_size=8)
#: entries of a zip that nobody of us made
_any_paths = st.text(st.sampled_from("ab./\\:\0éA "), min_size=0, max_size=12)


def may_be(files: dict[str, bytes]) -> bool:
    try:
        bundle.check_paths(files)
    except Invalid:
        return False
    return True


@given(files=_files.filter(may_be), seed=st.integers(0, 1000), method=st.sampled_from((0, zipfile.ZIP_DEFLATED)))
def test_order_compression_and_clock_do_not_change_the_id(files: dict[str, bytes], seed: int, method: int) -> None:
    shuffled = list(files.items())
    random.Random(seed).shuffle(shuffled)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, content in shuffled:
            info = zipfile.ZipInfo(path, (1981 + seed % 100, 1, 1, 0, 0, 0))
            info.compress_type = method
            archive.writestr(info, content)
    assert bundle.id_of(out.getvalue()) == bundle.id_of(bundle.pack(files)) == bundle.id_of_files(dict(shuffled))


@given(one=_files.filter(may_be), other=_files.filter(may_be))
def test_equal_ids_are_equal_files(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (bundle.id_of_files(one) == bundle.id_of_files(other)) == (one == other)


@given(files=_files.filter(may_be))
@settings(deadline=None, max_examples=50)
def test_what_is_unpacked_is_what_was_packed_and_nothing_else(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as home:
        store, name = BundleStore(home), bundle.id_of_files(files)
        assert store.put(name, bundle.pack(files))
        folder = store.unpacked(name)
        found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        assert found == files


@given(
    entries=st.lists(
        st.tuples(_any_paths, st.binary(max_size=20)),
        min_size=1,
        max_size=4,
        unique_by=lambda e: e[0].partition("\0")[0],
    )
)
@settings(deadline=None)
def test_no_zip_writes_outside_of_its_folder(entries: list[tuple[str, bytes]]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, content in entries:
            archive.writestr(zipfile.ZipInfo(path), content)
    with tempfile.TemporaryDirectory() as home:
        store = BundleStore(Path(home, "deep", "home"))
        try:
            name = bundle.id_of(out.getvalue())
        except Invalid:
            return
        store.put(name, out.getvalue())
        folder = store.unpacked(name)
        inside = {file for file in Path(home).rglob("*") if file.is_file()}
        assert all(file.is_relative_to(folder) for file in inside if file.suffix not in (".zip", ".lock"))

"""orchestrator.bundle: what a bundle is, and what a stranger's zip must not be."""

from __future__ import annotations

import io
import stat
import zipfile

import pytest

from orchestrator import bundle
from orchestrator.errors import Invalid

FILES = {"flow.py": b"import helper\n", "lib/late.py": b"", "requirements.txt": b"numpy\n"}


def zipped(*entries: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644, **of_info: object) -> bytes:
    """A zip as somebody else would make it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, content in entries:
            info = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            for name, value in of_info.items():
                setattr(info, name, value)
            archive.writestr(info, content)
    return out.getvalue()


def test_the_id_is_that_of_the_listing_that_sha256sum_would_print() -> None:
    import hashlib

    listing = "orchestrator-bundle-1\n" + "".join(
        f"{hashlib.sha256(FILES[path]).hexdigest()}  {path}\n" for path in sorted(FILES)
    )
    assert bundle.id_of_files(FILES) == hashlib.sha256(listing.encode()).hexdigest()


def test_how_it_was_packed_does_not_matter() -> None:
    ours = bundle.pack(FILES)
    theirs = zipped(*reversed(FILES.items()), mode=stat.S_IFREG | 0o755)
    assert ours != theirs
    assert bundle.id_of(ours) == bundle.id_of(theirs) == bundle.id_of_files(FILES)
    assert dict(bundle.entries(theirs)) == FILES


def test_path_and_content_both_count() -> None:
    other = {bundle.id_of_files(files) for files in (FILES, {**FILES, "a.py": b""}, {**FILES, "flow.py": b"\n"})}
    renamed = {("flow2.py" if path == "flow.py" else path): content for path, content in FILES.items()}
    assert len(other | {bundle.id_of_files(renamed)}) == 4


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "../out.py", "a/../../out.py", "a//b.py", "./a.py", "a/.", "a\\b.py", "C:a.py", "a\nb.py",
        "a\0b", "x" * 241, "e\u0301.py", "\u202eyp.py",
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    assert bundle.path_fault(path) is not None
    with pytest.raises(Invalid):
        bundle.pack({path: b""})


def test_a_zip_that_leads_out_of_its_folder_is_refused() -> None:
    for path in ("../out.py", "/abs.py", "a/../../out.py"):
        with pytest.raises(Invalid, match=r"out\.py|abs\.py"):
            bundle.id_of(zipped(("flow.py", b""), (path, b"")))


@pytest.mark.parametrize(
    "paths", [("a.py", "A.py"), ("a", "a/b.py"), ("A", "a/b.py"), ("straße.py", "STRASSE.py")], ids=str
)
def test_paths_that_some_file_system_cannot_hold_together_are_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        bundle.check_paths(paths)


def test_a_file_that_is_there_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = zipped(("a.py", b"1"), ("a.py", b"2"))
    with pytest.raises(Invalid, match="twice"):
        bundle.id_of(twice)


def test_links_folders_and_devices_are_refused() -> None:
    for kind in (stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO):
        with pytest.raises(Invalid, match="neither"):
            bundle.id_of(zipped(("a.py", b"/etc/passwd"), mode=kind | 0o777))


def test_other_compressions_are_refused() -> None:
    with pytest.raises(Invalid, match="neither"):
        bundle.id_of(zipped(("a.py", b"x" * 100), compress_type=zipfile.ZIP_BZIP2))


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zipped(*((f"{n}.bin", bytes(bundle.UNPACKED_MAX // 4)) for n in range(5)))
    assert len(bomb) < 1_000_000
    with pytest.raises(Invalid, match="bytes in all"):
        bundle.id_of(bomb)


def test_a_zip_with_a_directory_beyond_measure_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = zipped(("a.py", b""))
    begin, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")

    def opened(*_: object) -> None:
        raise AssertionError("it takes seconds, and a hundred megabytes")

    monkeypatch.setattr("zipfile.ZipFile", opened)
    with pytest.raises(Invalid, match="at most 2000 files"):
        bundle.id_of(whole[:begin] + whole[begin:end] * 100_000 + whole[end:])


def test_a_zip_in_a_bundle_may_have_more_files_than_a_bundle() -> None:
    inner = zipped(*((f"{number}.py", b"") for number in range(2 * bundle.FILES_MAX)))
    packed = bundle.pack({"wheels/made.whl": inner})
    assert dict(bundle.entries(packed)) == {"wheels/made.whl": inner}


def test_more_files_or_bytes_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Invalid, match="at most 2000 files"):
        bundle.pack({f"{n}.py": b"" for n in range(bundle.FILES_MAX + 1)})
    monkeypatch.setattr(bundle, "PACKED_MAX", 100)
    with pytest.raises(Invalid, match="when packed"):
        bundle.pack(FILES)
    with pytest.raises(Invalid, match="when packed"):
        bundle.id_of(bytes(101))
    monkeypatch.setattr(bundle, "UNPACKED_MAX", 10)
    with pytest.raises(Invalid, match="in all its files"):
        bundle.pack(FILES)


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip at all", bytes(1000)])
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        bundle.id_of(data)


def test_a_damaged_zip_is_refused() -> None:
    whole = bundle.pack({"a.py": bytes(range(256)) * 20})
    for at in range(0, len(whole), 7):
        damaged = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        try:
            assert bundle.id_of(damaged)
        except Invalid:
            continue
    with pytest.raises(Invalid):
        bundle.id_of(whole[:-30])


def test_nothing_is_no_bundle() -> None:
    with pytest.raises(Invalid, match="nothing"):
        bundle.pack({})

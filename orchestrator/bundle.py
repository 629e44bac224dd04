"""A bundle: the code of DAGs as one value, named by its content.

    files ──pack──▶ zip ──entries──▶ files, each checked        id = SHA-256 of the listing

    listing    `orchestrator-bundle-1`, then a line `<sha256 of the content>  <path>` for each file, by path

The id is that of the listing, not of the zip: the same files have the same id whatever machine, compressor or clock
packed them. Of a file nothing counts but its path and its bytes: no times, owners or modes, and folders exist only
through their files. A zip is read as if a stranger had sent it: paths that lead out of the folder, that differ in
nothing but case or that are file and folder at once, links, encrypted or nested tricks and everything beyond the limits
are refused before anything is written. All of it works in memory; `bundle_folder.py` reads a folder. Source: the
issue "On a cluster, and watched", item 2.
"""

from __future__ import annotations

import hashlib
import io
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping

from orchestrator.errors import Invalid

#: form of an id
ID = "[0-9a-f]{64}"
#: what pip reads, at the top of a bundle
REQUIREMENTS = "requirements.txt"
FILES_MAX = 2_000
PATH_MAX = 240
#: bytes of a zip, and of all its files together
PACKED_MAX = 16 * 1024 * 1024
UNPACKED_MAX = 64 * 1024 * 1024

_TITLE = b"orchestrator-bundle-1\n"
#: the earliest that a zip can tell
_EPOCH = (1980, 1, 1, 0, 0, 0)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
#: begins what a zip's directory says of one file; counted first, for each becomes an object as the zip is opened.
#: Those of zips in the bundle count too, so that there may be many more than files
_RECORD, _RECORDS_MAX = b"PK\x01\x02", 20 * FILES_MAX
#: what reading a zip that somebody made up may raise
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OverflowError, RuntimeError, ValueError)


class BundleId:
    """The id of files that are told one after another, in the order of their paths."""

    def __init__(self) -> None:
        self._listing = hashlib.sha256(_TITLE)

    def add(self, path: str, content: bytes) -> None:
        """One more file."""
        self._listing.update(f"{hashlib.sha256(content).hexdigest()}  {path}\n".encode())

    def text(self) -> str:
        """64 hexadecimal digits."""
        return self._listing.hexdigest()


def id_of_files(files: Mapping[str, bytes]) -> str:
    """The id of a bundle of these."""
    made = BundleId()
    for path in sorted(files):
        made.add(path, files[path])
    return made.text()


def id_of(packed: bytes) -> str:
    """The id of a packed bundle. Raises Invalid when it is none."""
    made = BundleId()
    for path, content in entries(packed):
        made.add(path, content)
    return made.text()


def pack(files: Mapping[str, bytes]) -> bytes:
    """The files, by path, as one zip. Raises Invalid beyond the limits."""
    check_paths(files)
    if sum(map(len, files.values())) > UNPACKED_MAX:
        raise Invalid(f"a bundle has at most {UNPACKED_MAX} bytes in all its files; leave out data")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, files[path])
    if packed.tell() > PACKED_MAX:
        raise Invalid(f"a bundle has at most {PACKED_MAX} bytes when packed, not {packed.tell()}; leave out data")
    return packed.getvalue()


def entries(packed: bytes) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file, by path. Raises Invalid, in the middle too: use nothing before the end."""
    if len(packed) > PACKED_MAX:
        raise Invalid(f"a bundle has at most {PACKED_MAX} bytes when packed, not {len(packed)}")
    if packed.count(_RECORD) > _RECORDS_MAX:
        raise Invalid(f"a bundle has at most {FILES_MAX} files")
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            yield from _read(archive)
    except Invalid:
        raise
    except _BROKEN as error:
        raise Invalid(f"the bundle is no zip that can be read: {error}") from error


def is_program(content: bytes) -> bool:
    """Is the file to be executable? Modes do not travel: a script says so itself, in its first two bytes."""
    return content.startswith((b"#!", b"\x7fELF"))


def _read(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    infos = archive.infolist()
    check_paths([info.filename for info in infos])
    left = UNPACKED_MAX
    for info in sorted(infos, key=lambda each: each.filename):
        is_file = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS or not is_file:
            raise Invalid(f"{info.filename!r}: neither a stored nor a deflated file")
        with archive.open(info) as file:
            content = file.read(left + 1)  # whatever size the zip claims
        left -= len(content)
        if left < 0:
            raise Invalid(f"a bundle has at most {UNPACKED_MAX} bytes in all its files")
        yield info.filename, content


def check_paths(paths: Iterable[str]) -> None:
    """Raises Invalid when these cannot be the files of a bundle."""
    told = list(paths)
    if not told:
        raise Invalid("there is nothing in the bundle")
    if len(told) > FILES_MAX:
        raise Invalid(
            f"a bundle has at most {FILES_MAX} files, not {len(told)}; name what is to stay out in an ignore file"
        )
    for path in told:
        if (fault := path_fault(path)) is not None:
            raise Invalid(f"{path[:PATH_MAX]!r}: {fault}")
    folded = sorted(path.casefold() for path in told)
    known = set(folded)
    for path, following in zip(folded, [*folded[1:], ""], strict=True):
        if path == following:
            raise Invalid(f"{path!r} is there twice, or in two spellings that some file systems do not tell apart")
        if any(path[:end] in known for end, letter in enumerate(path) if letter == "/"):
            raise Invalid(f"{path!r} lies in what is a file")


def path_fault(path: str) -> str | None:
    """Why this is not the path of a file in a bundle; None when it is."""
    if not 0 < len(path) <= PATH_MAX or not path.isprintable():
        return f"a path has 1 to {PATH_MAX} printable characters"
    if unicodedata.normalize("NFC", path) != path:
        return "a path is written in Unicode's normal form C"
    if "\\" in path or ":" in path or any(part in ("", ".", "..") for part in path.split("/")):
        return "a path leads from the folder of the bundle to a file in it, with `/` between names"
    return None

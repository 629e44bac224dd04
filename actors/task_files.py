"""Files of one job: `task_files` of its handlers, in a folder of its own among the artifacts.

    task_files.write("report/summary.txt", b"…")      durable, and seen whole or not at all
    task_files.read("report/summary.txt")

A name is a path below the folder; one that leads out of it is refused. Source: jobs contract, section 9a.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from actors import whole_files
from orchestrator.errors import Invalid


class TaskFiles:
    """The files in `folder`, which is made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes:
        """The content. Raises FileNotFoundError, Invalid."""
        return self._path(name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """The file has this content, also after a crash. Raises Invalid."""
        if not isinstance(content, bytes | bytearray | memoryview):
            raise Invalid(f"task file {name!r} holds bytes, not {type(content).__name__}")
        whole_files.put(self._path(name), content)

    def _path(self, name: str) -> Path:
        pure = PurePosixPath(name) if "\0" not in name else PurePosixPath("/")
        root = self._folder.resolve()
        path = (root / pure).resolve()
        if pure.is_absolute() or ".." in pure.parts or path == root or root not in path.parents:
            raise Invalid(f"task file {name!r} must be a path below the job's folder")
        return path

"""Return values of tasks: small plain JSON travels inline, everything else is a file that travels by its name.

    keep ──▶ stored: <home>/artifacts/<run id>/<task>.<attempt>, synced         or a store at an fsspec URL
             memory: /dev/shm/orchestrator-<id>/<run id>/<task>.<attempt>, gone with the machine (`memory_values.py`)
    read ──▶ mapped from there, or fetched once per node from the node it is on, or from the store (`fetched_values.py`)

A file is written aside, then renamed: a name never shows half a value. An attempt number never repeats within a run, so
no two values share a name, and a name is looked up in each place. How arrays share memory: `value_file.py`.

Inline is only what JSON gives back equal: None, bool, text, finite floats, ints of 64 bits, lists and objects with
text keys (tuples become lists). A datetime, NaN, a dict with int keys or a data frame keeps its type by being pickled.

Two designs were open for large values (architecture, D7):

(a) *Ray's object store.* A worker puts the value, consumers get zero-copy views, Ray moves it between nodes. But its
    owner is the process that put it: values die with any worker that crashes, or is scaled down. Refs would have to
    travel through our messages and journal, out of Ray's sight, and be pinned by somebody for as long as the run may
    need them. The store is 200 MB by default here: 1 GiB would be 1 GiB of memory set aside at start, or spill to disk.
    It has to be written to disk besides, for `stored`. Measured (1 GiB): put 0.3 s, the first 1.3 s; get 1 ms.
(b) *The file itself, mapped.* The page cache is the shared memory: zero copy between the processes of a node, no owner,
    no size to set, a crash of anything leaves it readable, and `stored` and `memory` differ in the directory alone.
    Other nodes need a copy: Ray moves it, in chunks through its object store, when somebody asks (`spawn.RayNodes`).
    A value is never half in one system and half in the other; the kernel gives memory back under pressure.
    Measured: 0.5 s into memory, 0.9 s onto the disk with its sync, the first 4.9 s; mapped in 0.3 ms.

(b), then: simpler, survives more, and as fast where it counts. Ray carries bytes between nodes, which it does well.

Whose they are, and when they go: `orchestrator/reclaim.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from actors import value_file, whole_files
from actors.fetched_values import FetchedValues
from actors.memory_values import MemoryValues, is_ours
from orchestrator.errors import Unavailable
from orchestrator.messages import Value

#: bytes of JSON
INLINE_MAX = 64 * 1024
#: the same for an instance of a mapped task, as there may be 10,000 of them
INSTANCE_INLINE_MAX = 4 * 1024
#: lists that a worker keeps in memory, as it will be asked for other elements of them
LISTS_KEPT = 2
#: a value that others put out of the cache of the node before it is mapped is fetched again so often
_FETCHES_MAX = 3
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1

_encode = msgspec.json.Encoder().encode


class MissingArtifact(Exception):
    """The files of these values are not there (any more)."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.names = names

    def __str__(self) -> str:
        several = "artifacts {} are" if len(self.names) > 1 else "artifact {} is"
        return f"{several.format(', '.join(self.names))} missing from the artifact directory"


class Artifacts:
    """Values of one node. `root` is the directory of what is stored, created when the first value needs it.

    `node` is Ray's id of the node, `memory` where values in memory are (None = they are stored as well), and `fetched`
    what gets values from elsewhere (None = nothing does).
    """

    def __init__(
        self, root: Path, *, node: str = "", memory: MemoryValues | None = None, fetched: FetchedValues | None = None
    ) -> None:
        self._root = root
        self._node = node
        self._memory = memory
        self._fetched = fetched
        #: artifact -> the list in it, the one used last at the end
        self._lists: dict[str, Sequence[Any]] = {}
        #: bytes of artifacts that were read, and fetched, since `take_counts`
        self._read_bytes = self._fetched_bytes = 0

    def keep(
        self,
        run_id: str,
        task: str,
        attempt: int,
        value: object,
        inline_max: int = INLINE_MAX,
        *,
        in_memory: bool = False,
    ) -> Value:
        """`value` as it travels; as durable as it is to be when this returns.

        Raises PermanentFailure when it cannot be stored, and Unavailable when the store does not take it.
        """
        inline = inline_json(value)
        if inline is not None and len(inline) <= inline_max:
            return Value(msgspec.Raw(inline), None, len(inline))
        name = f"{run_id}/{task}.{attempt}"
        size_bytes = self._kept_in_memory(name, value) if in_memory else None
        if size_bytes is None:
            size_bytes = self._store(name, value)
        return Value(artifact=name, size_bytes=size_bytes, node=self._node)

    def read(self, value: Value) -> Any:
        """The value again; arrays in it are read-only. Raises MissingArtifact, and Unavailable."""
        return self._read(value, value_file.read)

    def read_all(self, values: Sequence[Value]) -> list[Any]:
        """The same of several. Raises MissingArtifact with all that are missing."""
        out: list[Any] = []
        missing: list[str] = []
        for value in values:
            try:
                out.append(self.read(value))
            except MissingArtifact as gone:
                missing += gone.names
        if missing:
            raise MissingArtifact(*dict.fromkeys(missing))
        return out

    def element(self, value: Value, index: int) -> Any:
        """A copy of one element of a list that was kept. Raises MissingArtifact. The lists read last stay in memory."""
        name = value.artifact or ""
        if (elements := self._lists.pop(name, None)) is None:
            elements = self.read(value)
        self._lists[name] = elements
        while len(self._lists) > LISTS_KEPT:
            del self._lists[next(iter(self._lists))]
        return copy.deepcopy(elements[index])

    def read_plain(self, value: Value) -> Any:
        """The value again when it is made of plain data, such as text; code of the value's own is never run.

        Raises MissingArtifact; UnpicklingError when it is anything else.
        """
        return self._read(value, value_file.read_plain)

    def take_counts(self) -> tuple[int, int]:
        """Bytes of artifacts that were read, and those of them that had to be fetched, since this was asked last."""
        counts = (self._read_bytes, self._fetched_bytes)
        self._read_bytes = self._fetched_bytes = 0
        return counts

    def _read(self, value: Value, read: Callable[[Path], Any]) -> Any:
        if value.artifact is None:
            return msgspec.json.decode(value.inline)
        for path in self._paths(value.artifact):
            try:
                out = read(path)
            except FileNotFoundError:
                continue
            self._read_bytes += value.size_bytes
            return out
        out = self._read_fetched(value, read)
        self._read_bytes += value.size_bytes
        return out

    def _read_fetched(self, value: Value, read: Callable[[Path], Any]) -> Any:
        for _ in range(_FETCHES_MAX):
            path = self._fetch(value)
            try:
                return read(path)
            except FileNotFoundError:  # another worker of this node has made room for what it needs
                continue
        raise Unavailable(f"{value.artifact} does not stay here: ORCHESTRATOR_ARTIFACTS_CACHE_BYTES is too low")

    def _fetch(self, value: Value) -> Path:
        if self._fetched is None:
            raise MissingArtifact(value.artifact or "")
        try:
            path, fetched_bytes = self._fetched.get(value, elsewhere=value.node not in ("", self._node))
        except FileNotFoundError:
            raise MissingArtifact(value.artifact or "") from None
        self._fetched_bytes += fetched_bytes
        return path

    def _paths(self, name: str) -> Iterator[Path]:
        """Where on this machine it may have been written."""
        yield inside(self._root, name)
        if self._memory is not None and is_ours(self._memory.folder):
            yield inside(self._memory.folder, name)

    def _kept_in_memory(self, name: str, value: object) -> int | None:
        """Its size; None = there is no room for it."""
        if self._memory is None:
            return None
        try:
            return write_aside(
                inside(self._memory.folder, name), value, sync=False, limit_bytes=self._memory.make_room()
            )
        except (value_file.TooLarge, OSError):
            return None
        finally:
            self._memory.written()

    def _store(self, name: str, value: object) -> int:
        if self._fetched is not None and self._fetched.has_store:
            return self._fetched.store(name, lambda path: write_aside(path, value, sync=False))
        path = inside(self._root, name)
        size_bytes = write_aside(path, value, sync=True)
        whole_files.sync_folder(path.parent)
        whole_files.sync_folder(self._root)
        return size_bytes


def inside(root: Path, name: str) -> Path:
    """Where the artifact of that name is in a directory."""
    path = root / name
    if ".." in path.parts or not path.is_relative_to(root):
        raise ValueError(name)
    return path


def write_aside(path: Path, value: object, *, sync: bool, limit_bytes: float = math.inf) -> int:
    """The file of that path holds the value, whole or not at all; its size in bytes. Raises as `value_file.write`."""
    with whole_files.aside(path) as file:
        size_bytes = value_file.write(file, value, limit_bytes)
        if sync:
            whole_files.sync(file)
    return size_bytes


def inline_json(value: object) -> bytes | None:
    """`value` as JSON that gives it back equal, at most INLINE_MAX bytes; None when there is none."""
    try:
        if not _is_plain(value):
            return None
        text = _encode(value)
    except (RecursionError, UnicodeEncodeError, msgspec.MsgspecError):
        return None
    return text if len(text) <= INLINE_MAX else None


def _is_plain(value: object) -> bool:
    kind = type(value)
    if kind is str:
        return len(value) <= INLINE_MAX  # type: ignore[arg-type] # a str
    if value is None or kind is bool:
        return True
    if kind is int:
        return _INT_MIN <= value <= _INT_MAX  # type: ignore[operator] # an int
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type] # a float
    if isinstance(value, list | tuple) and kind in (list, tuple):
        return len(value) <= INLINE_MAX // 2 and all(map(_is_plain, value))
    if isinstance(value, dict) and kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    return False

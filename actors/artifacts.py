"""Return values of tasks: small plain JSON travels inline, everything else is pickled into a file.

    <root>/<run id>/<task>.<attempt>      written aside, synced, then renamed: a name never shows half a value

Inline is only what JSON gives back equal: None, bool, text, finite floats, ints of 64 bits, lists and objects with
text keys (tuples become lists). A datetime, NaN, a dict with int keys or a data frame keeps its type by being pickled.
An attempt number never repeats within a run, so no two values share a name.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.errors import PermanentFailure
from orchestrator.messages import Value

#: bytes of JSON
INLINE_MAX = 64 * 1024
#: the same for an instance of a mapped task, as there may be 10,000 of them
INSTANCE_INLINE_MAX = 4 * 1024
#: lists that a worker keeps in memory, as it will be asked for other elements of them
LISTS_KEPT = 2
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1

_encode = msgspec.json.Encoder().encode


class MissingArtifact(Exception):
    """The file of a value is not there (any more)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"artifact {self.name} is missing from the artifact directory"


class Artifacts:
    """The artifact directory `root`; created when the first value needs it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        #: artifact -> the list in it, the one used last at the end
        self._lists: dict[str, Sequence[Any]] = {}

    def keep(self, run_id: str, task: str, attempt: int, value: object, inline_max: int = INLINE_MAX) -> Value:
        """`value` as it travels; durable when this returns. Raises PermanentFailure when it cannot be stored."""
        inline = inline_json(value)
        if inline is not None and len(inline) <= inline_max:
            return Value(msgspec.Raw(inline), None, len(inline))
        name = f"{run_id}/{task}.{attempt}"
        return Value(artifact=name, size_bytes=self._write(self._path(name), value))

    def read(self, value: Value) -> Any:
        """The value again. Raises MissingArtifact."""
        if value.artifact is None:
            return msgspec.json.decode(value.inline)
        try:
            with self._path(value.artifact).open("rb") as file:
                return pickle.load(file)
        except FileNotFoundError:
            raise MissingArtifact(value.artifact) from None

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
        if value.artifact is None:
            return msgspec.json.decode(value.inline)
        try:
            with self._path(value.artifact).open("rb") as file:
                return _PlainUnpickler(file).load()
        except FileNotFoundError:
            raise MissingArtifact(value.artifact) from None

    def _path(self, name: str) -> Path:
        path = self._root / name
        if ".." in path.parts:
            raise ValueError(name)
        return path

    def _write(self, path: Path, value: object) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                _pickle_into(file, value)
                file.flush()
                os.fsync(file.fileno())
                size_bytes = file.tell()
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
        _sync_directory(path.parent)
        _sync_directory(self._root)
        return size_bytes


class _PlainUnpickler(pickle.Unpickler):
    """Knows no classes and no functions."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


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


def _pickle_into(file: Any, value: object) -> None:
    try:
        pickle.dump(value, file, protocol=5)
        return
    except Exception as error:
        plain = error
    # Classes and functions that cannot be imported by name need the pickler that copies them.
    file.seek(0)
    file.truncate()
    try:
        from ray import cloudpickle

        cloudpickle.dump(value, file, protocol=5)  # type: ignore[no-untyped-call]
    except Exception:
        raise PermanentFailure(
            f"the return value of type {type(value).__qualname__} cannot be stored: {plain}"
        ) from plain


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""The file that a large value is in: a pickle, and beside it the memory of its arrays, which readers map.

    0   "orcval01", bytes of the pickle, number of buffers (u64 little-endian each)     zeros up to 64
    64  the pickle (protocol 5)
        length of each buffer (u64 each)
        the buffers, each at a multiple of 64

Pickle protocol 5 hands the memory of arrays, data frames and Arrow tables over *out of band* (PEP 574). Here it is
written as it is, and a reader maps the file, so that all processes of a machine share one copy: that of the page cache.
What was mapped is read-only: who wants to change it makes a copy. Small buffers, `bytes` and everything else stay in
the pickle, and each reader has a copy of its own; `pickle.PickleBuffer(data)` hands bytes over without one, and is read
as a memoryview. A mapping outlives the name of its file.

Files that begin in another way are plain pickles, as they were written before.
"""

from __future__ import annotations

import math
import mmap
import pickle
import struct
from collections.abc import Sequence
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

from orchestrator.errors import PermanentFailure

MAGIC = b"orcval01"
_HEAD = struct.Struct("<8sQQ")
#: bytes between places at which something may begin; that of a cache line, which vector instructions want
ALIGNMENT = 64
#: a smaller buffer is not worth a mapping
BUFFER_MIN = 4096


class TooLarge(Exception):
    """The value does not fit into what it was to be written to."""


def write(file: BufferedWriter, value: object, limit_bytes: float = math.inf) -> int:
    """`value` is in the file, which is empty; its size in bytes.

    Raises PermanentFailure when it cannot be stored, and TooLarge, before its buffers are written.
    """
    buffers, pickled = _pickled(file, value)
    lengths = [buffer.nbytes for buffer in buffers]
    if file.tell() + sum(lengths) > limit_bytes:
        raise TooLarge
    file.write(struct.pack(f"<{len(lengths)}Q", *lengths))
    for buffer in buffers:
        file.write(bytes(-file.tell() % ALIGNMENT))
        file.write(buffer)
    size_bytes = file.tell()
    file.seek(0)
    file.write(_HEAD.pack(MAGIC, pickled, len(buffers)))
    file.flush()
    return size_bytes


def read(path: Path) -> Any:
    """The value in the file. Raises FileNotFoundError."""
    with path.open("rb") as file:
        pickled, count = _head(file)
        if not count:
            return pickle.load(file)
        return _mapped(file, pickled, count)


def read_plain(path: Path) -> Any:
    """The same of plain data, such as text; code of the value's own is never run.

    Raises FileNotFoundError; UnpicklingError when it is anything else.
    """
    with path.open("rb") as file:
        _head(file)
        return _PlainUnpickler(file).load()


def _pickled(file: BufferedWriter, value: object) -> tuple[list[memoryview], int]:
    """The pickle is in its place; buffers that come behind it, and its length."""
    try:
        return _pickled_with(pickle, file, value)
    except Exception as error:
        plain = error
    # Classes and functions that cannot be imported by name need the pickler that copies them.
    try:
        from ray import cloudpickle

        return _pickled_with(cloudpickle, file, value)
    except Exception:
        raise PermanentFailure(
            f"the return value of type {type(value).__qualname__} cannot be stored: {plain}"
        ) from plain


def _pickled_with(pickler: Any, file: BufferedWriter, value: object) -> tuple[list[memoryview], int]:
    buffers: list[memoryview] = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < BUFFER_MIN:
            return True
        buffers.append(raw)
        return False

    file.seek(0)
    file.truncate()
    file.write(bytes(ALIGNMENT))
    pickler.dump(value, file, protocol=5, buffer_callback=stays_inside)
    return buffers, file.tell() - ALIGNMENT


def _head(file: BufferedReader) -> tuple[int, int]:
    """Bytes of the pickle and number of buffers; the file stands where the pickle begins."""
    head = file.read(_HEAD.size)
    if not head.startswith(MAGIC):
        file.seek(0)
        return 0, 0
    file.seek(ALIGNMENT)
    _, pickled, count = _HEAD.unpack(head)
    return pickled, count


def _mapped(file: BufferedReader, pickled: int, count: int) -> Any:
    whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    end = ALIGNMENT + pickled
    lengths = struct.unpack_from(f"<{count}Q", whole, end)
    return pickle.loads(whole[ALIGNMENT:end], buffers=_slices(whole, end + 8 * count, lengths))


def _slices(whole: memoryview, start: int, lengths: Sequence[int]) -> list[memoryview]:
    out = []
    for length in lengths:
        start += -start % ALIGNMENT
        out.append(whole[start : start + length])
        start += length
    return out


class _PlainUnpickler(pickle.Unpickler):
    """Knows no classes and no functions."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")

"""`module:function` → the function, imported once and again when its source has changed.

The operator's code lies in a few folders (`<home>/dags` first) that are put at the end of the import path. A worker
outlives many deployments, so before each use the source files loaded from those folders are looked at; when one has
changed, everything loaded from there is forgotten. Installed packages are imported once, as always. No byte code is
written for these folders: its freshness check has a resolution of a second, and a deployment may be quicker.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.errors import PermanentFailure

#: (modification time in ns, size): another one means another source
Stamp = tuple[int, int]


class Entrypoints:
    """Functions by name. Only the thread that runs tasks may call it."""

    def __init__(self, folders: tuple[str, ...]) -> None:
        self._folders = folders
        self._found: dict[str, Callable[..., Any]] = {}
        self._watched: dict[str, Stamp | None] = {}

    def resolve(self, entrypoint: str) -> Callable[..., Any]:
        """The function; of a decorated task, the author's own. Raises PermanentFailure when there is none."""
        if self._watched and any(_stamp(path) != stamp for path, stamp in self._watched.items()):
            self._forget()
        found = self._found.get(entrypoint)
        if found is None:
            found = self._found[entrypoint] = self._load(entrypoint)
            self._watched = {path: _stamp(path) for _, path in self._loaded()}
        return found

    def _load(self, entrypoint: str) -> Callable[..., Any]:
        module, colon, qualname = entrypoint.partition(":")
        if not (module and colon and qualname):
            raise PermanentFailure(f"entrypoint {entrypoint!r} is not of the form module:function")
        found: Any = self._import(entrypoint, module)
        for name in qualname.split("."):
            if not hasattr(found, name):
                raise PermanentFailure(f"entrypoint {entrypoint!r}: module {module!r} has no {qualname!r}")
            found = getattr(found, name)
        found = getattr(found, "function", found)
        if not callable(found):
            raise PermanentFailure(f"entrypoint {entrypoint!r} is a {type(found).__name__}, not a function")
        return found  # type: ignore[no-any-return] # checked just above

    def _import(self, entrypoint: str, module: str) -> object:
        sys.path += [folder for folder in self._folders if folder not in sys.path]
        importlib.invalidate_caches()
        try:
            with no_byte_code():
                return importlib.import_module(module)
        except BaseException as error:
            why = f"{type(error).__name__}: {error}"
            raise PermanentFailure(f"entrypoint {entrypoint!r} cannot be imported: {why}") from error

    def _forget(self) -> None:
        for name, _ in list(self._loaded()):
            del sys.modules[name]
        self._found.clear()
        self._watched.clear()

    def _loaded(self) -> Iterator[tuple[str, str]]:
        roots = tuple(os.path.join(folder, "") for folder in self._folders)
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and path.startswith(roots):
                yield name, path


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


@contextmanager
def no_byte_code() -> Iterator[None]:
    """What is imported meanwhile leaves no byte code: its freshness check is too coarse for files that people edit."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before

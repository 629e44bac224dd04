"""What is in an unpacked bundle, found out where it can do no harm: in a process of its own, with a limit on its time.

    check ── python -m actors.bundle_check ──▶ import path as in `bundle_child.py`
          ◀─ file: definitions, or what is wrong ── imports the files at the top, resolves every entrypoint

So what would fail at a task's first attempt fails at the deploy: a file that cannot be imported, a module that nobody
provides, a function that is not there, a name that an installed module has already. The server calls `check`; nothing
of the bundle is ever imported into the server's own processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgspec

from actors import bundle_wire as wire
from actors.entrypoints import Entrypoints
from actors.lua_cage import die_with_parent
from orchestrator.definition import Definition
from orchestrator.errors import Invalid, PermanentFailure, Unavailable
from orchestrator.load import load

#: seconds that importing a bundle may take
CHECK_S = 60.0
#: characters of a traceback, and of what the process printed when it died
TOLD_MAX = 8000
#: bytes that the process may print, and seconds between two looks at how many they are
SAID_MAX = 64 * 1024 * 1024
_LOOK_S = 0.5
_DIED_MAX = 500


class Findings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the process found: definitions, or why there are none."""

    definitions: tuple[Definition, ...] = ()
    #: "" = nothing is wrong
    message: str = ""
    #: (file or field, what is wrong with it)
    details: tuple[tuple[str, str], ...] = ()


def check(
    folder: Path, packages: Path | None, code_dirs: tuple[str, ...], limit_s: float = CHECK_S
) -> list[Definition]:
    """The DAGs of the bundle unpacked in `folder`. Raises Invalid, whose details have the traceback. Blocks.

    Raises Unavailable when this machine has no room for it.
    """
    try:
        found = _found(folder, packages, code_dirs, limit_s)
    except OSError as error:
        raise Unavailable(f"the bundle cannot be checked: {error}") from error
    if found.message:
        raise Invalid(found.message, found.details)
    return list(found.definitions)


def _found(folder: Path, packages: Path | None, code_dirs: tuple[str, ...], limit_s: float) -> Findings:
    with tempfile.TemporaryDirectory(prefix="bundle-") as place:
        out, said = Path(place, "findings.json"), Path(place, "output")
        order = [str(os.getpid()), str(out), str(folder.resolve()), str(packages or ""), *code_dirs]
        ended = _run([sys.executable, "-P", "-m", "actors.bundle_check", *order], said, limit_s)
        if not out.exists():
            last = _last_words(said)
            raise Invalid(f"the bundle cannot be imported: {ended}", (("output", last),) if last else ())
        return msgspec.json.decode(out.read_bytes(), type=Findings)


def _last_words(said: Path) -> str:
    """What it printed last: it may have printed without end."""
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - 4 * _DIED_MAX))
        return file.read(4 * _DIED_MAX).decode(errors="replace").strip()[-_DIED_MAX:]


def _run(command: list[str], said: Path, limit_s: float) -> str:
    """How it ended; nothing of its process group is left."""
    with said.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=wire.environment(),
            start_new_session=True,
        )
        try:
            return _ended(process, said, time.monotonic() + limit_s) or f"it was not done within {limit_s:g} s"
        finally:
            _kill_group(process.pid)
            process.wait()


def _ended(process: subprocess.Popen[bytes], said: Path, deadline_s: float) -> str | None:
    """How it ended by itself, or was too loud; None when its time is over."""
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            code = process.wait(min(left_s, _LOOK_S))
        except subprocess.TimeoutExpired:
            if said.stat().st_size > SAID_MAX:
                return f"it printed more than {SAID_MAX:,} bytes"
        else:
            return f"exit code {code}" if code >= 0 else f"its process was ended by signal {-code}"
    return None


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # nobody is left in it


# ── in the process ────────────────────────────────────────────────────────────────────────────────


def findings(folder: Path) -> Findings:
    """What is in the bundle whose folder is on the import path. Never raises."""
    try:
        definitions = tuple(load(folder))
        taken = list(_taken(folder))
        if taken:
            names = ", ".join(name for name, _ in taken)
            return Findings(message=f"names of modules that are taken: {names}; rename the files", details=tuple(taken))
        missing = tuple(_missing(folder, definitions))
        if missing:
            return Findings(message="; ".join(why for _, why in missing[:5]), details=missing)
        return Findings(definitions)
    except Invalid as invalid:
        return _refused(folder, invalid)
    except BaseException as error:  # `load` answers for Exception; code may end the process as it is imported
        return _refused(folder, Invalid(f"{folder}: {type(error).__name__}: {error}"), error)


def _refused(folder: Path, invalid: Invalid, cause: BaseException | None = None) -> Findings:
    cause = cause or invalid.__cause__
    place = f"{folder}/"
    message = str(invalid).replace(place, "")
    details = invalid.details
    if cause is not None and not isinstance(cause, Invalid):
        file = message.partition(":")[0]
        hint = _hint(cause)
        message += f"; {hint}" if hint else ""
        trace = "".join(traceback.format_exception(type(cause), cause, _own(cause, folder)))[-TOLD_MAX:]
        details = ((file, hint or f"{type(cause).__name__}: {cause}"), ("traceback", trace.replace(place, "")))
    return Findings(message=message, details=details)


def _hint(cause: BaseException) -> str:
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        return f"module {cause.name!r} is neither in the bundle nor installed: name its package in requirements.txt"
    return ""


def _own(cause: BaseException, folder: Path) -> TracebackType | None:
    """The traceback from the first frame in the bundle on."""
    frame = cause.__traceback__
    while frame is not None and not frame.tb_frame.f_code.co_filename.startswith(f"{folder}/"):
        frame = frame.tb_next
    return frame


def _taken(folder: Path) -> Iterator[tuple[str, str]]:
    """Modules at the top of the bundle that are hidden by others of the same name."""
    for entry in sorted(folder.iterdir()):
        name = entry.stem if entry.suffix == ".py" else entry.name
        is_package = entry.is_dir() and any(entry.rglob("*.py"))
        if not (entry.suffix == ".py" or is_package):
            continue
        where = _place_of(name)
        if where is not None and not where.startswith(f"{folder}/"):
            yield entry.name, f"{name!r} is {where}"


def _place_of(name: str) -> str | None:
    """Where the module of that name comes from; None when nobody has asked for it, and it is not Python's own."""
    if (module := sys.modules.get(name)) is not None:
        return str(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "built in"))
    return "a module of Python" if name in sys.stdlib_module_names else None


def _missing(folder: Path, definitions: tuple[Definition, ...]) -> Iterator[tuple[str, str]]:
    """Entrypoints that no worker would find."""
    entrypoints = Entrypoints((str(folder),))
    for definition in definitions:
        for position, task in enumerate(definition.tasks):
            if task.entrypoint is None:
                continue
            try:
                entrypoints.resolve(task.entrypoint)
            except PermanentFailure as failure:
                cause = failure.__cause__
                hint = f"; {_hint(cause)}" if cause is not None and _hint(cause) else ""
                yield f"{definition.dag_id}/tasks/{position}/entrypoint", f"{failure}{hint}"


def main(parent: str, out: str, folder: str, packages: str, *code_dirs: str) -> None:
    """Writes the findings to `out`. Ends with the process `parent`, which has the limit on its time."""
    die_with_parent(int(parent))
    wire.extend_path(packages, (folder, *code_dirs))
    sys.dont_write_bytecode = True
    found = findings(Path(folder))
    aside = Path(out).with_suffix(".new")
    aside.write_bytes(msgspec.json.encode(found))
    aside.rename(out)
    os._exit(0)  # threads that the code has started are nobody's


if __name__ == "__main__":
    main(*sys.argv[1:])

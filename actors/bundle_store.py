"""Bundles as files: where they are kept for good, and what a node makes of them to run their code.

    <home>/bundles/<id>.zip                 as packed; durable before anybody hears of it
    <home>/bundles/offered/<id>.zip         by the operator's command line, for the server to keep
    <home>/bundles/unpacked/<id>/           the files, on each node that runs them    ┐ made anew when it is missing,
    <home>/bundles/packages/<key>/          what its requirements.txt asks for        ┘ gone after WEEK_S without use

Zips are in the data directory, or behind `ORCHESTRATOR_BUNDLES_URL` (any fsspec URL) for clusters whose nodes do not
share it; the folder is then a cache. Not in the journal, although small ones would fit: what is in there is in the
memory of its server, and in its log, for as long as a run may be retried. A bundle read from anywhere is checked
against its id before it is used. What was unpacked is compared with the zip whenever a process starts from it, so a
crash of the node that lost half of it is made good.

Requirements are installed by `pip install --target` (or `uv`, where pip is missing) into a folder for all bundles that
ask for the same, and come before other packages on the import path. One installation of a folder goes on at a time, in
a session of its own that holds the lock: it ends well even when the worker that waits for it is killed, which an
attempt with a short limit may lead to, and the next one finds it done. What the process itself is made of is pinned
(`_PINNED`): who asks for another version is told at the deploy. Methods block: call them in a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from actors import whole_files
from actors.clock import Clock
from actors.filesystems import filesystem
from actors.process import SECRETS
from orchestrator import bundle as bundles
from orchestrator.errors import Invalid, NotFound, Unavailable

#: seconds that an installation may take
INSTALL_S = 300.0
#: what nobody used for so long leaves the node
WEEK_S = 7 * 24 * 3600.0
#: what was offered, and nobody took for so long, goes
GRACE_S = 24 * 3600.0
#: characters of pip's output in an error
_TOLD_MAX = 4000
#: what our own code stands on in the process of a bundle
_PINNED = ("msgspec", "redis", "hiredis", "pydantic", "networkx", "croniter")
#: $1 is the folder to make and $2 a scratch folder: requirements name files from where the bundle is. What is there
#: counts as installed, also after the machine lost its power, so all of it is on the disk before
_INSTALL = 'target=$1 aside=$2; shift 2; "$@" && { sync -f "$aside" || sync; } && mv "$aside/site" "$target"'
#: a requirement that says all about itself, other than one of a file or an option
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._ -]*\])?\s*([<>=!~;].*)?$")


class BundleStore:
    """The bundles of one data directory."""

    def __init__(self, home: Path | str, url: str = "") -> None:
        self.folder = Path(home, "bundles")
        self._url = url.rstrip("/")

    def put(self, bundle: str, packed: bytes) -> bool:
        """It is kept, durably; False when it was before, and whole, as stores that write in place may be cut off.

        Raises Invalid when it has another id, and Unavailable.
        """
        if bundles.id_of(packed) != bundle:
            raise Invalid(f"the content is that of another bundle than {bundle}", (("bundle", "not its content's id"),))
        if self._is_whole(bundle):
            return False
        self._keep(bundle, packed)
        if self._url:
            self._send(bundle, packed)
        return True

    def has(self, bundle: str) -> bool:
        """Is it kept where all nodes find it? Raises Unavailable."""
        if not self._url:
            return self._zip(bundle).exists()
        files, path = self._remote(bundle)
        try:
            return bool(files.exists(path))
        except Exception as error:  # each kind of store has errors of its own
            raise Unavailable(f"the bundles at {self._url}: {error}") from error

    def packed(self, bundle: str) -> bytes:
        """The bundle, checked. Raises NotFound, Invalid, Unavailable."""
        try:
            found = self._zip(bundle).read_bytes()
            if bundles.id_of(found) == bundle:
                if self._url:
                    os.utime(self._zip(bundle))
                return found
        except FileNotFoundError:
            found = b""
        except Invalid as damaged:
            if not self._url:
                raise Unavailable(f"bundle {bundle} is damaged: {damaged}") from damaged
        except OSError as error:
            raise Unavailable(f"bundle {bundle}: {error}") from error
        if not self._url:
            if found:
                raise Unavailable(f"bundle {bundle} is damaged: its content has another id")
            raise NotFound("bundle", bundle)
        found = self._fetch(bundle)
        if not _is(bundle, found):
            raise Unavailable(f"bundle {bundle} at {self._url} is damaged; deploy the same code again")
        self._keep(bundle, found)
        return found

    def publish(self, bundle: str) -> None:
        """What lies in the data directory is where all nodes find it. Raises NotFound, Unavailable."""
        if not self._is_whole(bundle):
            packed = self.packed(bundle)
            if self._url:
                self._send(bundle, packed)

    def take(self, bundle: str) -> bytes | None:
        """It is not kept any more; what it was, unless it was gone or damaged. Raises Unavailable."""
        try:
            packed = self.packed(bundle)
        except (NotFound, Unavailable):
            packed = None
        self.remove(bundle)
        return packed

    def offer(self, bundle: str, packed: bytes) -> None:
        """It lies where a server of this data directory takes it from. Raises Unavailable."""
        for entry in _older(self.folder / "offered", GRACE_S):
            entry.unlink(missing_ok=True)
        self._keep(bundle, packed, self.folder / "offered")

    def offered(self, bundle: str) -> bytes | None:
        """What somebody on this machine has offered. Raises Unavailable."""
        try:
            return (self.folder / "offered" / self._zip(bundle).name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"bundle {bundle}: {error}") from error

    def withdraw(self, bundle: str) -> None:
        """It is not on offer any more."""
        (self.folder / "offered" / self._zip(bundle).name).unlink(missing_ok=True)

    def remove(self, bundle: str) -> None:
        """It is not kept any more. Raises Unavailable."""
        try:
            if self._url:
                files, path = self._remote(bundle)
                if files.exists(path):
                    with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                        files.rm_file(path)
            self._zip(bundle).unlink(missing_ok=True)
            shutil.rmtree(self.folder / "unpacked" / bundle, ignore_errors=True)
            (self.folder / "unpacked" / f"{bundle}.lock").unlink(missing_ok=True)
        except Exception as error:
            raise Unavailable(f"bundle {bundle}: {error}") from error

    def unpacked(self, bundle: str) -> Path:
        """Its files on this node, complete. Raises NotFound, Invalid, Unavailable."""
        target = self.folder / "unpacked" / bundle
        packed = self.packed(bundle)
        try:
            if not _is_complete(target, packed):
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with _alone(target.with_suffix(".lock")):
                    if not _is_complete(target, packed):  # nobody was quicker, and takes what there is for whole
                        self._unpack(packed, target)
            os.utime(target)
        except OSError as error:
            raise Unavailable(f"bundle {bundle} cannot be unpacked: {error}") from error
        return target

    def packages(self, bundle: str, folder: Path) -> Path | None:
        """What the requirements of the bundle unpacked in `folder` ask for, installed; None = it has none.

        Raises Invalid with what pip said, and Unavailable.
        """
        wanted = requirements_in(folder)
        if not wanted:
            return None
        target = self.folder / "packages" / _key(bundle, wanted)
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _alone(target.with_suffix(".lock")) as lock:
                if not target.exists():
                    _sweep(target.parent)
                    self._install(folder, target, lock)
            os.utime(target)
        except OSError as error:
            raise Unavailable(f"requirements of bundle {bundle} cannot be installed: {error}") from error
        return target

    # ── files ──

    def _zip(self, bundle: str) -> Path:
        if not re.fullmatch(bundles.ID, bundle):
            raise NotFound("bundle", bundle)
        return self.folder / f"{bundle}.zip"

    def _is_whole(self, bundle: str) -> bool:
        """Do all nodes find it, and find it undamaged? Raises Unavailable."""
        try:
            return _is(bundle, self._fetch(bundle) if self._url else self._zip(bundle).read_bytes())
        except (NotFound, FileNotFoundError):
            return False
        except OSError as error:
            raise Unavailable(f"bundle {bundle}: {error}") from error

    def _keep(self, bundle: str, packed: bytes, folder: Path | None = None) -> None:
        folder = folder or self.folder
        target = folder / self._zip(bundle).name
        try:
            whole_files.tidy(folder, GRACE_S)
            whole_files.put(target, packed)
        except OSError as error:
            raise Unavailable(f"bundle {bundle} cannot be kept: {error}") from error

    def _unpack(self, packed: bytes, target: Path) -> None:
        _sweep(target.parent)
        self._drop_copies()
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
        try:
            for path, content in bundles.entries(packed):
                file = aside / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                if bundles.is_program(content):
                    file.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    def _install(self, folder: Path, target: Path, lock: int) -> None:
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
        (aside / "site").mkdir()
        (aside / "constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in _pins()))
        try:
            _run_installer(folder, aside, target, lock)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    # ── the store behind a URL ──

    def _drop_copies(self) -> None:
        """What is behind the URL, and nobody here used for a week, is not on this node."""
        if not self._url:
            return
        with contextlib.suppress(Unavailable):
            for entry in _older(self.folder, WEEK_S):
                if entry.suffix == ".zip" and self.has(entry.stem):
                    entry.unlink(missing_ok=True)

    def _remote(self, bundle: str) -> tuple[Any, str]:
        name = self._zip(bundle).name
        return filesystem(f"{self._url}/{name}")

    def _send(self, bundle: str, packed: bytes) -> None:
        files, path = self._remote(bundle)
        try:
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            files.pipe_file(path, packed)
        except Exception as error:
            raise Unavailable(f"the bundles at {self._url}: {error}") from error

    def _fetch(self, bundle: str) -> bytes:
        files, path = self._remote(bundle)
        try:
            found: bytes = files.cat_file(path)
        except FileNotFoundError:
            raise NotFound("bundle", bundle) from None
        except Exception as error:
            raise Unavailable(f"the bundles at {self._url}: {error}") from error
        return found


def requirements_in(folder: Path) -> list[str]:
    """Lines of its requirements.txt that say something."""
    try:
        text = (folder / bundles.REQUIREMENTS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{bundles.REQUIREMENTS}: {error}", ((bundles.REQUIREMENTS, "cannot be read"),)) from error
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def _is(bundle: str, packed: bytes) -> bool:
    try:
        return bundles.id_of(packed) == bundle
    except Invalid:
        return False


def _key(bundle: str, wanted: list[str]) -> str:
    """The same for all that install the same here. Options and paths may mean anything: they are the bundle's own."""
    own = "" if all(_PLAIN.match(line) for line in wanted) else bundle
    pins = [f"{name}=={version}" for name, version in _pins()]
    where = [str(sys.implementation.cache_tag), sysconfig.get_platform(), own]
    return hashlib.sha256("\n".join([*where, *wanted, "", *pins]).encode()).hexdigest()[:32]


def _pins() -> Iterator[tuple[str, str]]:
    for name in _PINNED:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _run_installer(folder: Path, aside: Path, target: Path, lock: int) -> None:
    place = aside.resolve()
    asked = ["--target", str(place / "site"), "--requirement", bundles.REQUIREMENTS]
    command = [*_installer(), *asked, "--constraint", str(place / "constraints.txt")]
    output = aside / "output"
    with output.open("wb") as said:
        process = subprocess.Popen(
            ["sh", "-c", _INSTALL, "sh", str(target.resolve()), str(place), *command],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name not in SECRETS},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=True,
        )
    try:
        code = process.wait(INSTALL_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise _refused(f"its packages were not installed within {INSTALL_S:.0f} s") from None
    if code != 0:
        told = output.read_text(errors="replace").strip()[-_TOLD_MAX:]
        errors = [line for line in told.splitlines() if line.startswith(("ERROR:", "error:", "  ×"))]
        raise _refused((errors or told.splitlines() or [f"exit code {code}"])[-1].strip(), told)


def _installer() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable, "--quiet"]
    raise _refused("neither pip nor uv is here to install it")


def _refused(why: str, told: str = "") -> Invalid:
    details = ((bundles.REQUIREMENTS, why), *((("output", told),) if told else ()))
    return Invalid(f"{bundles.REQUIREMENTS}: {why}", details)


def _is_complete(folder: Path, packed: bytes) -> bool:
    try:
        return all(_is_file(folder / path, content) for path, content in bundles.entries(packed))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def _is_file(file: Path, content: bytes) -> bool:
    return file.read_bytes() == content and (not bundles.is_program(content) or os.access(file, os.X_OK))


def _sweep(folder: Path) -> None:
    """What nobody used for a week is gone; a process that uses it has touched it when it started."""
    for entry in _older(folder, WEEK_S):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)


def _older(folder: Path, age_s: float) -> Iterator[Path]:
    before_s = Clock().now().timestamp() - age_s
    for entry in folder.iterdir() if folder.exists() else ():
        try:
            old = entry.stat().st_mtime < before_s
        except FileNotFoundError:  # another process is done with it
            continue
        if old:
            yield entry


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[int]:
    """Nobody else is inside, in any process of this node; the descriptor that holds the lock, wherever it is open."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()

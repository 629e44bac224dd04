"""Bundles for tests: a flow over a helper, in versions that differ in the helper alone."""

from __future__ import annotations

from pathlib import Path

import msgspec

from actors.bundle_store import BundleStore
from orchestrator import bundle
from orchestrator.messages import Assignment, RunContext

FLOW = """
import os
import signal
import time

import helper
from orchestrator import PermanentFailure, dag, task


@task
def which() -> str:
    print("asked for", helper.VERSION)
    return helper.VERSION


@task
def later() -> str:
    from lib import late

    return late.VERSION


@task
def process() -> int:
    return os.getpid()


@task
def shows(seen) -> str:
    return repr(seen)


@task
def makes():
    return {1: "one"}


@task
def fails():
    raise PermanentFailure("no more")


@task
def dies():
    os.kill(os.getpid(), signal.SIGKILL)


@task
def leaves_a_child():
    child = os.fork()
    if child == 0:
        time.sleep(5)  # with everything open that its parent had open
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def sleeps(ctx, seconds: float = 60.0):
    time.sleep(0.2)
    ctx.heartbeat()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


@task
def notes(ctx) -> str:
    ctx.checkpoint({"at": 1})
    return ctx.last_checkpoint()["at"]


@dag
def flow():
    which()
    later()
"""


def files(version: str = "one", **more: str) -> dict[str, bytes]:
    """Path -> content."""
    helper = f"VERSION = {version!r}\n"
    told = {"flow.py": FLOW, "helper.py": helper, "lib/late.py": helper, **more}
    return {path: text.encode() for path, text in told.items()}


def kept(home: Path, version: str = "one", **more: str) -> str:
    """Id of a bundle that is in the store of that data directory."""
    made = files(version, **more)
    name = bundle.id_of_files(made)
    BundleStore(home).put(name, bundle.pack(made))
    return name


def assignment(function: str, **params: object) -> Assignment:
    """The first attempt of that task of the flow."""
    raw = msgspec.Raw(msgspec.json.encode(params))
    return Assignment("run_1", function, 1, "python", f"flow:{function}", raw, {}, 60.0)


def context(name: str, tenant: str = "t") -> RunContext:
    """A run that pins that bundle."""
    return RunContext("run_1", tenant, "flow", 1, None, "run-actor-0", {}, bundle=name)

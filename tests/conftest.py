"""What every test stands on: the environment, before anybody imports Ray; and a collector that is not in the way."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import pytest

# A test starts a cluster on purpose or not at all, and none of them talks to the world.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
# What the developer has set for a server of their own must not leak into the tests.
for _name in ("ORCHESTRATOR_URL", "ORCHESTRATOR_TOKEN", "ORCHESTRATOR_HOME", "REDIS_URL"):
    os.environ.pop(_name, None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Tests and their modules stay to the end; looking through them for garbage took a third of all time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000)
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """An error that tests have as a parameter is raised by each; its traceback would keep all that those built."""
    callspec = getattr(item, "callspec", None)
    for value in callspec.params.values() if callspec is not None else ():
        if isinstance(value, BaseException):
            value.__traceback__ = None

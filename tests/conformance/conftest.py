"""The shared live server, one without patience, and a DAG to trigger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dags_api import Api, fresh_noop
from tests.jobs_api import write_blueprints
from tests.live import Server, api, live, serving

__all__ = ["api", "flows", "hasty", "live", "plain"]


@pytest.fixture(scope="session")
def plain(api: Api) -> str:
    """A DAG with one no-op task."""
    return fresh_noop(api)


@pytest.fixture(scope="session")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the blueprints of the jobs contract's examples."""
    return write_blueprints(tmp_path_factory.mktemp("blueprints"))


@pytest.fixture(scope="session")
def hasty(flows: Path) -> Iterator[Server]:
    """A server that takes workers and runners for lost after 2 s, gives a webhook up at once, and may be flushed.

    It has one runner of its own.
    """
    environ = {
        "BLUEPRINTS_DIR": str(flows),
        "WORKER_HEALTH_CHECK_INTERVAL_SECONDS": "1",
        "ORCHESTRATOR_DEBUG": "1",
        "WEBHOOK_MAX_ATTEMPTS": "1",
        "CANCEL_GRACE_SECONDS": "1",
        "PIPELINES_RUNNER_TIMEOUT_S": "2",
        "PIPELINES_INCLUSTER_RUNNERS": "1",
    }
    with serving(environ=environ) as running:
        yield running

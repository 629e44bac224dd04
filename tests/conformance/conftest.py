"""The shared live server, and a DAG to trigger."""

from __future__ import annotations

import pytest

from tests.dags_api import Api, fresh_noop
from tests.live import api, live

__all__ = ["api", "live", "plain"]


@pytest.fixture(scope="session")
def plain(api: Api) -> str:
    """A DAG with one no-op task."""
    return fresh_noop(api)

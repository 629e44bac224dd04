"""The gateway comes with the first work outside the cluster, and from then on with every start."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.live import Server, serving
from tests.pipelines_api import DONE, Ci, empty

pytestmark = [pytest.mark.ray, pytest.mark.slow]

GATEWAY = "GatewayProcess"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own, without blueprints."""
    with serving(environ={"BLUEPRINTS_DIR": ""}) as started:
        yield started


def test_the_gateway_comes_with_the_first_work_for_it_and_stays(server: Server) -> None:
    metrics = httpx.get(server.url + "/metrics").text
    assert "orchestrator_open_polls 0.0" in metrics
    assert not server.processes(GATEWAY), "nothing needed it"

    ci = Ci(server.url)
    job_id = ci.fresh_job()
    ci.claimed(job_id, "r1")
    assert server.processes(GATEWAY)

    server.down()
    server.up()
    empty(ci.complete(job_id, DONE))
    assert ci.ended(job_id)["status"] == "Succeeded"

"""What the server's answers look like, under the names of its OpenAPI components: one module a part of the API.

    from orchestrator.client.shapes import DagsRun, JobsJob

Instants are RFC 3339 text in UTC. A key that is `NotRequired` is left out when there is nothing to say. That they
agree with the server's own description is what `tests/unit/client/test_shapes.py` checks.
"""

from orchestrator.client.shapes.cluster import *  # noqa: F403 # all of these modules is for users
from orchestrator.client.shapes.dag_runs import *  # noqa: F403
from orchestrator.client.shapes.dags import *  # noqa: F403
from orchestrator.client.shapes.instances import *  # noqa: F403
from orchestrator.client.shapes.jobs import *  # noqa: F403
from orchestrator.client.shapes.pipelines import *  # noqa: F403
from orchestrator.client.shapes.runs import *  # noqa: F403

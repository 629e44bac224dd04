"""Bodies of DAGs, and what is made of them."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.definition import Definition
from orchestrator.errors import Invalid
from orchestrator.spec import parse_dag

Body = dict[str, Any]


def dag(*tasks: Body, **more: Any) -> Body:
    return {"dag_id": "d", "owner": "o", **({"tasks": list(tasks)} if tasks else {}), **more}


def a_task(**more: Any) -> Body:
    return {"id": "a", **more}


def parsed(*tasks: Body, **more: Any) -> Definition:
    return parse_dag(dag(*tasks, **more))[0]


def refused(body: object) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse_dag(body)
    return caught.value


def fields(body: object) -> list[str]:
    return [field for field, _ in refused(body).details]

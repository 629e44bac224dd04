"""Which definitions would call themselves, directly or through others, as far as it is written in them.

    a ──core.dag──▶ b ──core.dag──▶ a        refused with whichever of them is deployed last

Two that are deployed at the same moment may each miss the other; then the call itself is refused (`calls.py`).
"""

from __future__ import annotations

from orchestrator.calls import CALL, callees_of
from orchestrator.definition import Definition
from orchestrator.errors import NotFound
from orchestrator.faults import refusal
from serve_app.dag_book import DagBook

#: DAGs that one definition reaches, of those that are looked at
REACHED_MAX = 1000


async def check(book: DagBook, tenant: str, definition: Definition) -> None:
    """Raises Invalid when a run of `definition` would wait for another one of its own DAG."""
    reached: list[tuple[str, tuple[str, ...]]] = [(name, (definition.dag_id, name)) for name in callees_of(definition)]
    seen: set[str] = set()
    while reached and len(seen) < REACHED_MAX:
        name, path = reached.pop()
        if name == definition.dag_id:
            raise refusal([(_where(definition, path[1]), f"calls itself: {' -> '.join(path)}")])
        if name in seen:
            continue
        seen.add(name)
        try:
            called = (await book.fresh(tenant, name)).definition
        except NotFound:
            continue  # it may be deployed later
        reached += [(below, (*path, below)) for below in callees_of(called)]


def _where(definition: Definition, callee: str) -> str:
    """The field of the call that leads there."""
    calls = (n for n, task in enumerate(definition.tasks) if task.type == CALL and task.params.get("dag_id") == callee)
    return f"tasks/{next(calls)}/params/dag_id"

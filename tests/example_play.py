"""Examples, driven through the machine of a run with their own functions and no worker."""

from __future__ import annotations

from typing import Any

from orchestrator import Skip, dags_in
from orchestrator.binding import arguments, facts
from tests.builders import Story, a_value


def play(module: Any, **params: Any) -> Story:
    """A run of the example to its end."""
    (dag,) = dags_in(module)
    definition = dag.definition()
    specs = {spec.id: spec for spec in definition.tasks}
    story = Story(*definition.tasks).start()
    values: dict[str, Any] = {}
    while story.ready:
        name = story.ready[0]
        function = getattr(module, name).function
        inputs = {where: values.get(producer) for where, producer in specs[name].inputs.items()}
        told = facts("run_1", definition.dag_id, None)
        args, kwargs = arguments(function, specs[name].params, inputs, params, told, None)
        story.begin(name)
        try:
            values[name] = function(*args, **kwargs)
        except Skip as skip:
            story.do(story.report(name, "skipped", error=str(skip)))
        except RuntimeError as error:
            story.do(story.report(name, "error", error=str(error)))
        else:
            story.do(story.report(name, "ok", value=a_value(values[name])))
    return story

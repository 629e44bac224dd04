"""What a task asks of the cluster, as written in a definition: read into what `task_shapes.py` knows."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.definition import TaskResources
from orchestrator.pools import AMOUNT_MAX, BYTES_MAX, NAMES_MAX

Amount = Annotated[float, Field(ge=0, le=AMOUNT_MAX)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class ResourcesBody(BaseModel):
    """What a task asks of the cluster, as written."""

    model_config = ConfigDict(strict=True, extra="forbid")

    num_cpus: Amount = 0.0
    num_gpus: Amount = 0.0
    memory_bytes: int = Field(default=0, ge=0, le=BYTES_MAX)
    #: custom resources of the cluster
    custom: dict[Name, Amount] = Field(default_factory=dict, max_length=NAMES_MAX)
    #: that the node must have
    labels: dict[Name, Name] = Field(default_factory=dict, max_length=NAMES_MAX)

    def read(self) -> TaskResources | None:
        """What is asked for; None = nothing."""
        custom = {name: float(amount) for name, amount in sorted(self.custom.items()) if amount}
        labels = dict(sorted(self.labels.items()))
        found = TaskResources(float(self.num_cpus), float(self.num_gpus), self.memory_bytes, custom, labels)
        return None if found == TaskResources() else found

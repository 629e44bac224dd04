"""What can go wrong, as one tree.

`Refused` is the caller's doing and will be refused again; `Unavailable` may work when tried
again; `Broken` is our bug. Every error hands all its arguments to `super().__init__`, so that it
survives pickling between Ray processes, and says in `__str__` what was asked and what was true.
`serve_app/problems.py` alone maps this tree to HTTP.
"""

from __future__ import annotations


class OrchestratorError(Exception):
    """Root of every error this product raises on purpose."""


class Refused(OrchestratorError):
    """The caller asked for something that cannot be done."""


class Unavailable(OrchestratorError):
    """Something we depend on did not answer; the same request may succeed later."""


class Broken(OrchestratorError):
    """An invariant of ours does not hold."""


class Invalid(Refused):
    """The request itself is malformed. `details` names each field at fault."""

    def __init__(self, message: str, details: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message, details)
        self.message = message
        #: (path of the field, what is wrong with it), for instance ("tasks/1/depends_on/0", "unknown task 'x'")
        self.details = details

    def __str__(self) -> str:
        return self.message


class NotFound(Refused):
    """No such object, or it belongs to another tenant."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name

    def __str__(self) -> str:
        return f"{self.kind} {self.name} not found"


class Conflict(Refused):
    """The command is not allowed in the present state, or a precondition does not hold."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class NotAllowed(Refused):
    """The caller may do other things with the object, but not this."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class HistoryGone(Refused):
    """A stream was asked for from a point on that is no longer kept."""

    def __init__(self, run_id: str, through: int) -> None:
        super().__init__(run_id, through)
        self.run_id = run_id
        #: version of the last event that was removed
        self.through = through

    def __str__(self) -> str:
        return f"events of run {self.run_id} up to {self.through} are no longer kept"


class AlreadyEnded(Conflict):
    """The command is for a run that goes on; this one is terminal."""

    def __init__(self, run_id: str, state: str) -> None:
        Refused.__init__(self, run_id, state)
        self.run_id = run_id
        #: core run state
        self.state = state
        self.message = f"run {run_id} is already {state}"


class InstanceDead(Unavailable):
    """An orchestrator instance has ended, or its actor does not answer."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self.instance_id = instance_id

    def __str__(self) -> str:
        return f"instance {self.instance_id} is not running"


class StaleAttempt(Refused):
    """A report carries an attempt that has been replaced; it has no effect."""

    def __init__(self, task: str, attempt: int, current: int) -> None:
        super().__init__(task, attempt, current)
        self.task = task
        self.attempt = attempt
        self.current = current

    def __str__(self) -> str:
        return f"attempt {self.attempt} of task {self.task} was replaced; the current one is {self.current}"


class StaleVersion(Refused):
    """An append expected another version of the entity, or came from a former owner."""

    def __init__(self, entity: str, expected: int, actual: int) -> None:
        super().__init__(entity, expected, actual)
        self.entity = entity
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        return f"{self.entity}: expected version {self.expected}, found {self.actual}"


class Fenced(Refused):
    """A newer incarnation of this owner exists; this one must stop."""

    def __init__(self, owner: str, epoch: int, current: int) -> None:
        super().__init__(owner, epoch, current)
        self.owner = owner
        self.epoch = epoch
        self.current = current

    def __str__(self) -> str:
        return f"{self.owner}: epoch {self.epoch} was replaced by {self.current}"


class JournalUnavailable(Unavailable):
    """The journal did not answer within its deadline."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"journal unavailable: {self.why}"


class ActorUnreachable(Unavailable):
    """A control actor did not answer within its deadline."""

    def __init__(self, actor: str, why: str) -> None:
        super().__init__(actor, why)
        self.actor = actor
        self.why = why

    def __str__(self) -> str:
        return f"actor {self.actor} unreachable: {self.why}"


class NotInCharge(Unavailable):
    """Another control plane decides: what an actor has to answer is asked of that one."""

    def __init__(self, holder: str, url: str) -> None:
        super().__init__(holder, url)
        #: the plane in charge; "" = nobody is, for the moment
        self.holder = holder
        #: where it answers; "" = it does not say
        self.url = url

    def __str__(self) -> str:
        if not self.holder:
            return "this control plane stands by, and nobody is in charge yet"
        return f"this control plane stands by: {self.url or self.holder} is in charge"


class KubernetesUnavailable(Unavailable):
    """A run in mode k8s was asked for, and there is no Kubernetes cluster to run its tasks in."""

    def __str__(self) -> str:
        return "no Kubernetes cluster is configured, or the kubernetes extra is missing"


class PermanentFailure(Exception):
    """Raised by a task's own code: fail now, without further retries."""


class Skip(Exception):
    """Raised by a task's own code, with the reason: there is nothing to do, and the task is skipped."""


class TaskCancelled(Exception):
    """Raised inside a task's own code when its attempt has been cancelled or has timed out."""

"""Groups of tasks, as an author meets them: a function called inside a `@dag` function adds its tasks under a name.

    @group                               cleaned = clean(load())          tasks load, clean.parse, clean.check
    def clean(text):                     backup() >> cleaned >> mail()    its first tasks wait for `backup`,
        return check(parse(text))                                         and `mail` waits for its last ones

A `@dag` function that is called inside another one is a group too. It is all compile time: what is left of a group in a
definition is the `group` of its tasks and the beginning of their ids, so a run, its speed and its history know nothing
new. `A >> group` is an edge to each first task, `group >> B` one from each last task; teardowns and compensations are
neither. As an argument a group stands for what its function returned.

Two designs were open for what a call gives back: what the function returned, beside a way to name the group, or an
object that is both. It is the second: `x = clean(…)` reads the same for a task and a group, and may become either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.errors import Invalid

if TYPE_CHECKING:
    from typing import TypeAlias

    from orchestrator.draft import Output

    #: what can be waited for
    Node: TypeAlias = "Output | Group"

Later = TypeVar("Later")

#: between the name of a group and what is in it
SEPARATOR = "."


class Group:
    """The tasks of one call, standing for what its function returned."""

    def __init__(self, name: str, returned: Any, first: tuple[Output, ...], last: tuple[Output, ...]) -> None:
        self.name = name
        self.returned = returned
        #: its tasks that wait for no other of its tasks, and those that no other of its tasks waits for
        self._first = first
        self._last = last

    def __repr__(self) -> str:
        return f"group {self.name!r}"

    def __iter__(self) -> Iterator[Any]:
        if not isinstance(self.returned, (tuple, list)):
            raise TypeError(f"{self!r} does not return several outputs")
        return iter(self.returned)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(self.returned, (tuple, list, dict)):
            raise TypeError(f"{self!r} does not return several outputs")
        return self.returned[key]

    def after(self, *others: Node) -> Group:
        """The tasks of this group start after `others`."""
        for one in self.first():
            one.after(*others)
        return self

    def __rshift__(self, later: Later) -> Later:
        nodes: Iterable[Any] = later if isinstance(later, (list, tuple)) else (later,)
        for one in nodes:
            one.after(self)
        return later

    def __rrshift__(self, earlier: Iterable[Node]) -> Group:
        return self.after(*earlier)

    def first(self) -> tuple[Output, ...]:
        """What starts when the group may. Raises Invalid."""
        return self._first or self._empty()

    def last(self) -> tuple[Output, ...]:
        """What has ended when the group has. Raises Invalid."""
        return self._last or self._empty()

    def _empty(self) -> tuple[Output, ...]:
        raise Invalid(f"{self!r} has no tasks that others could come before or after")


def value_of(argument: Any) -> Any:
    """What stands for `argument`: of a group what its function returned. Raises Invalid."""
    while isinstance(argument, Group):
        if argument.returned is None:
            raise Invalid(f"{argument!r} returns nothing to pass on: return the output of one of its tasks")
        argument = argument.returned
    return argument


def ends_of(nodes: Iterable[Node]) -> list[Output]:
    """The tasks that have ended when all of `nodes` have. Raises Invalid."""
    return [task for node in nodes for task in (node.last() if isinstance(node, Group) else (node,))]


def within(group: str, name: str) -> str:
    """The id of what is called `name` in `group`; "" = outside any."""
    return f"{group}{SEPARATOR}{name}" if group else name

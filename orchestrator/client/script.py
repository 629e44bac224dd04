"""What a client does, as a script: a generator that says what to do next and is told what came of it.

    script ── Call(request) ──▶ driver ── httpx ──▶ server          Call    ask, and get the whole answer
       ▲                          │                                 Open    ask for a stream; Read what it brings
       └── Answer | Lost | … ─────┘                                 Wait, Now, Mint: time and chance
                                                                    Emit    give something to the caller

Scripts know no sockets, no clock and no event loop: the same ones are driven by the blocking client, by the
asynchronous one and by tests. A script that gives nothing away but its result is a `Script[T]`, one that emits is a
`Stream[E]`.

Requests are repeated only when that is safe: GET, what carries an idempotency key, what the contract calls
idempotent; anything, when it was refused unread (429) or never left. `Retry-After` is obeyed; otherwise waits
double from a quarter of a second to five seconds. A server that has never answered is not waited for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar
from urllib.parse import quote

from orchestrator.client.errors import NotRunning, ServerBroken, ServerUnreachable, refusal_of, said

T = TypeVar("T")
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)

#: how long one answer may take, and how long "try again" is waited out
TIMEOUT_S = 30.0
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 5.0
#: between looks at what is waited for, at first and in the long run
_FIRST_LOOK_S = 0.1
_LAST_LOOK_S = 1.0

#: what a proxy or a server says when the same request may succeed later
_LATER = frozenset({429, 502, 503, 504})


class Absent:
    """The type of ABSENT."""


#: stands for a JSON value that is not there, where null would mean something
ABSENT = Absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request to the server."""

    method: str
    #: escaped already
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: a JSON value, or ABSENT for no body
    body: object = ABSENT
    #: a body that is no JSON, of the type that the headers give; None = there is none
    content: bytes | None = None
    #: it may be sent again although the server may have seen it
    repeatable: bool = False
    #: longest silence of the server
    timeout_s: float = TIMEOUT_S

    @property
    def asked(self) -> str:
        """The request in a few words."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    #: the server's
    url: str
    status: int
    #: names in lower case
    headers: Mapping[str, str]
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody answered, or the connection broke."""

    url: str
    why: str
    #: False when the request has certainly not left
    sent: bool = True
    #: True when this server has answered before
    known: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """Ask. Replied to with an Answer or Lost."""

    request: Request


@dataclass(frozen=True, slots=True)
class Open:
    """Ask for a stream. Replied to with an Answer, without content when it streams, or Lost. Ends the one before."""

    request: Request


@dataclass(frozen=True, slots=True)
class Read:
    """Read on in the open stream. Replied to with bytes, None at its end, or Lost."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Let some time pass, in seconds, drawn from this range."""

    least_s: float
    most_s: float


@dataclass(frozen=True, slots=True)
class Now:
    """Replied to with seconds since some instant."""


@dataclass(frozen=True, slots=True)
class Mint:
    """Replied to with a key that nobody has used."""


@dataclass(frozen=True, slots=True)
class Emit(Generic[E_co]):
    """Give something to the caller."""

    value: E_co


Effect: TypeAlias = Call | Open | Read | Wait | Now | Mint
Reply: TypeAlias = Answer | Lost | bytes | str | float | None
Script: TypeAlias = Generator[Effect, Reply, T]
Stream: TypeAlias = Generator[Effect | Emit[E], Reply, None]


class Patience:
    """How long to wait before the next try, and when to give up."""

    def __init__(self, limit_s: float = TIMEOUT_S) -> None:
        self._limit_s = limit_s
        self.renew()

    def renew(self) -> None:
        """There was progress."""
        self._left_s = self._limit_s
        self._next_s = _FIRST_WAIT_S

    def pause(self, asked_s: float | None, why: Lost) -> Script[None]:
        """Waits as long as the server asked for, or longer each time. Raises ServerUnreachable when it was enough."""
        least_s, most_s = (self._next_s / 2, self._next_s) if asked_s is None else (asked_s, asked_s * 1.1)
        self._left_s -= max(most_s, _FIRST_WAIT_S)
        if not why.known or self._left_s < 0:
            raise ServerUnreachable(why.url, why.why)
        self._next_s = min(_LONGEST_WAIT_S, self._next_s * 2)
        yield Wait(least_s, most_s)


def get(path: str, **query: str | int | None) -> Script[Any]:
    """The JSON value at `path`; query parameters that are None are left out."""
    given = {name: value for name, value in query.items() if value is not None}
    return (yield from json_of(Request(method="GET", path=path, query=given, repeatable=True)))


def json_of(request: Request) -> Script[Any]:
    """The JSON value that answers `request`. Raises the errors of `orchestrator.client.errors`."""
    answer = yield from ask(request)
    try:
        return json.loads(answer.content)
    except ValueError:
        raise ServerBroken(answer.status, f"{request.asked}: no JSON") from None


def keyed(request: Request, header: str, key: str | None = None) -> Script[Any]:
    """Like `json_of`, of a command that an idempotency key makes safe to repeat: the caller's, or one of our own."""
    if key is None:
        key = yield from mint()
    return (yield from json_of(replace(request, headers={**request.headers, header: key}, repeatable=True)))


def part(whole: Script[Any], name: str) -> Script[Any]:
    """What the JSON object that answers `whole` has under `name`."""
    return (yield from whole)[name]


def ask(request: Request) -> Script[Answer]:
    """The good answer to `request`, repeated while that is safe and makes sense."""
    patience = Patience()
    while True:
        reply = yield Call(request)
        match reply:
            case Answer() if 200 <= reply.status < 300:
                return reply
            case Answer():
                asked_s, why = later(request, reply)
            case Lost():
                if reply.sent and not request.repeatable:
                    raise ServerUnreachable(reply.url, f"{request.asked} was sent, and then: {reply.why}")
                asked_s, why = None, reply
            case _:
                raise AssertionError(reply)
        yield from patience.pause(asked_s, why)


def later(request: Request, answer: Answer) -> tuple[float | None, Lost]:
    """What to wait for before `request` is sent again, and why. Raises when that would not help."""
    again = answer.status in _LATER and (answer.status == 429 or (request.repeatable and _passes(answer)))
    if not again:
        _refuse(request, answer)
    why = f"{request.asked}: {answer.status} {said(answer.content)}".rstrip()
    return _seconds(answer.headers.get("retry-after")), Lost(answer.url, why)


def mint() -> Script[str]:
    """A fresh idempotency key."""
    key = yield Mint()
    assert isinstance(key, str)
    return key


def now() -> Script[float]:
    """Seconds since some instant."""
    seconds = yield Now()
    assert isinstance(seconds, float)
    return seconds


def until(look: Callable[[], Script[T]], over: Callable[[T], bool], timeout_s: float | None) -> Script[T]:
    """What `look` finds once that is over, or when `timeout_s` have passed: it is looked at ever less often."""
    wait_s = _FIRST_LOOK_S
    end_s = None if timeout_s is None else (yield from now()) + timeout_s
    while True:
        found = yield from look()
        if over(found) or (end_s is not None and (yield from now()) >= end_s):
            return found
        yield Wait(wait_s / 2, wait_s)
        wait_s = min(_LAST_LOOK_S, wait_s * 2)


def path(template: str, *names: str) -> str:
    """`template` with each `{}` replaced by a name, escaped."""
    return template.format(*(quote(name, safe="") for name in names))


def _passes(answer: Answer) -> bool:
    """Is "not now" a matter of time? A 503 of ours without `Retry-After` is about something that has ended."""
    return answer.status != 503 or "retry-after" in answer.headers or not said(answer.content)


def _refuse(request: Request, answer: Answer) -> NoReturn:
    if 400 <= answer.status < 500:
        raise refusal_of(answer.status, answer.content, request.asked)
    if answer.status in _LATER and _passes(answer):
        raise ServerUnreachable(answer.url, f"{answer.status} {said(answer.content)}".rstrip())
    if answer.status in _LATER:
        raise NotRunning(said(answer.content))
    raise ServerBroken(answer.status, said(answer.content) or request.asked)


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` as seconds; None when there is none, or a date."""
    try:
        return None if retry_after is None else max(0.0, float(retry_after))
    except ValueError:
        return None

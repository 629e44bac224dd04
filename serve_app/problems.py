"""What went wrong, as HTTP sees it: one table from errors to a problem, whatever surface words it.

The core's errors come from `orchestrator.errors`; those below exist only because there is HTTP. A surface
renders a `Problem` in its own form (contracts, section 5). Texts of Unavailable and Broken errors stay in
the log: a caller learns which dependency is down, never why. One that stands by says who is in charge instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from orchestrator.errors import (
    ActorUnreachable,
    Conflict,
    Fenced,
    HistoryGone,
    Invalid,
    JournalUnavailable,
    NotAllowed,
    NotFound,
    NotInCharge,
    Refused,
    Unavailable,
)


class Unauthenticated(Refused):
    """Nobody we know is asking."""

    def __init__(self, why: str = "missing or invalid bearer token") -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why


class Forbidden(Refused):
    """The caller lacks a scope."""

    def __init__(self, scope: str) -> None:
        super().__init__(scope)
        self.scope = scope

    def __str__(self) -> str:
        return f"scope {self.scope} required"


class NotThatWorker(Forbidden):
    """A remote worker speaks for another one."""

    def __init__(self, worker_id: str, other: str) -> None:
        Refused.__init__(self, worker_id, other)
        self.scope = "worker"
        self.worker_id = worker_id
        self.other = other

    def __str__(self) -> str:
        return f"Authenticated worker '{self.worker_id}' cannot submit results for another worker '{self.other}'."


class TooManyRequests(Refused):
    """The caller has used up what it may ask for."""

    def __init__(self, limit: str, retry_after_s: int) -> None:
        super().__init__(limit, retry_after_s)
        #: what the limit is, for instance "10 requests per second per tenant"
        self.limit = limit
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.limit


class QuotaExhausted(TooManyRequests):
    """A client has created as many jobs as it may in this month."""


class BodyTooLarge(Refused):
    """The request body exceeds the limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"body is larger than {self.limit_bytes} bytes"


class NoSuchPath(Refused):
    """The surface has no such path."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"path {self.path} not found"


class WrongMethod(Refused):
    """The path exists, the method does not."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(method, allowed)
        self.method = method
        self.allowed = allowed

    def __str__(self) -> str:
        return f"method {self.method} not allowed; allowed: {', '.join(self.allowed)}"


class Kind(StrEnum):
    """What a problem is about; a surface has a word for each."""

    INVALID = "invalid"
    TOO_LARGE = "too_large"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    WRONG_METHOD = "wrong_method"
    CONFLICT = "conflict"
    GONE = "gone"
    RATE_LIMITED = "rate_limited"
    BROKEN = "broken"
    UNAVAILABLE = "unavailable"


#: status of each kind, unless a contract gives another
STATUS = MappingProxyType(
    {
        Kind.INVALID: 400,
        Kind.TOO_LARGE: 413,
        Kind.UNAUTHENTICATED: 401,
        Kind.FORBIDDEN: 403,
        Kind.NOT_FOUND: 404,
        Kind.WRONG_METHOD: 405,
        Kind.CONFLICT: 409,
        Kind.GONE: 410,
        Kind.RATE_LIMITED: 429,
        Kind.BROKEN: 500,
        Kind.UNAVAILABLE: 503,
    }
)

#: the nearest ancestor of an error decides
KINDS: MappingProxyType[type[Exception], Kind] = MappingProxyType(
    {
        Invalid: Kind.INVALID,
        BodyTooLarge: Kind.TOO_LARGE,
        Unauthenticated: Kind.UNAUTHENTICATED,
        Forbidden: Kind.FORBIDDEN,
        NotAllowed: Kind.FORBIDDEN,
        NotFound: Kind.NOT_FOUND,
        NoSuchPath: Kind.NOT_FOUND,
        WrongMethod: Kind.WRONG_METHOD,
        Conflict: Kind.CONFLICT,
        HistoryGone: Kind.GONE,
        TooManyRequests: Kind.RATE_LIMITED,
        # a newer owner took over in the middle of this request: the same request will succeed
        Fenced: Kind.UNAVAILABLE,
        Refused: Kind.CONFLICT,
        Unavailable: Kind.UNAVAILABLE,
        Exception: Kind.BROKEN,
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error in the neutral form that surfaces render."""

    kind: Kind
    message: str
    details: tuple[tuple[str, str], ...] = ()
    #: headers that go with it on every surface
    headers: tuple[tuple[str, str], ...] = ()


def problem_of(error: Exception) -> Problem:
    """The problem that `error` is; anything we did not raise on purpose is broken."""
    kind = next(KINDS[each] for each in type(error).__mro__ if each in KINDS)
    details = error.details if isinstance(error, Invalid) else ()
    return Problem(kind, _message(kind, error), details, _headers(kind, error))


def _message(kind: Kind, error: Exception) -> str:
    if kind is Kind.BROKEN:
        return "internal error"
    if kind is not Kind.UNAVAILABLE:
        return str(error)
    if isinstance(error, NotInCharge):
        return str(error)
    if isinstance(error, JournalUnavailable):
        return "journal unavailable"
    return f"{error.actor} unavailable" if isinstance(error, ActorUnreachable) else "temporarily unavailable"


def _headers(kind: Kind, error: Exception) -> tuple[tuple[str, str], ...]:
    if kind is Kind.UNAUTHENTICATED:
        return (("WWW-Authenticate", "Bearer"),)
    if isinstance(error, WrongMethod):
        return (("Allow", ", ".join(error.allowed)),)
    if isinstance(error, TooManyRequests):
        return (("Retry-After", str(error.retry_after_s)),)
    again = (("Retry-After", "1"),) if kind is Kind.UNAVAILABLE else ()
    return (*again, ("X-In-Charge", error.url)) if isinstance(error, NotInCharge) and error.url else again

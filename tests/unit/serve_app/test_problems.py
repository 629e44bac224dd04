"""One table from errors to problems."""

from __future__ import annotations

import pytest

from orchestrator import errors
from orchestrator.errors import OrchestratorError
from serve_app.problems import (
    KINDS,
    STATUS,
    BodyTooLarge,
    Forbidden,
    Kind,
    NoSuchPath,
    TooManyRequests,
    Unauthenticated,
    WrongMethod,
    problem_of,
)

TABLE = [
    (errors.Invalid("to is before from", (("to", "before from"),)), Kind.INVALID, "to is before from"),
    (errors.NotFound("run", "run_99"), Kind.NOT_FOUND, "run run_99 not found"),
    (errors.Conflict("run run_9 is already success"), Kind.CONFLICT, "run run_9 is already success"),
    (errors.StaleVersion("run_9", 1, 2), Kind.CONFLICT, "run_9: expected version 1, found 2"),
    (errors.Fenced("run-actor-0", 1, 2), Kind.UNAVAILABLE, "temporarily unavailable"),
    (errors.JournalUnavailable("password hunter2"), Kind.UNAVAILABLE, "journal unavailable"),
    (errors.ActorUnreachable("scheduler", "secret"), Kind.UNAVAILABLE, "scheduler unavailable"),
    (errors.Unavailable("secret"), Kind.UNAVAILABLE, "temporarily unavailable"),
    (errors.KubernetesUnavailable(), Kind.UNAVAILABLE, "temporarily unavailable"),
    (errors.Broken("secret"), Kind.BROKEN, "internal error"),
    (ZeroDivisionError("secret"), Kind.BROKEN, "internal error"),
    (Unauthenticated(), Kind.UNAUTHENTICATED, "missing or invalid bearer token"),
    (Forbidden("admin"), Kind.FORBIDDEN, "scope admin required"),
    (TooManyRequests("10 requests per second per tenant", 3), Kind.RATE_LIMITED, "10 requests per second per tenant"),
    (BodyTooLarge(5), Kind.TOO_LARGE, "body is larger than 5 bytes"),
    (NoSuchPath("/x"), Kind.NOT_FOUND, "path /x not found"),
    (WrongMethod("PUT", ("GET", "POST")), Kind.WRONG_METHOD, "method PUT not allowed; allowed: GET, POST"),
]


@pytest.mark.parametrize(("error", "kind", "message"), TABLE, ids=lambda value: type(value).__name__)
def test_each_error_is_a_problem_of_one_kind(error: Exception, kind: Kind, message: str) -> None:
    problem = problem_of(error)
    assert (problem.kind, problem.message) == (kind, message)


def test_every_kind_has_a_status() -> None:
    assert set(STATUS) == set(Kind)


def test_every_error_of_the_core_is_somebodys_doing_unless_we_are_broken() -> None:
    def family(error: type[Exception]) -> list[type[Exception]]:
        return [error, *(each for child in error.__subclasses__() for each in family(child))]

    # what a client raises never reaches a server's caller
    ours = [each for each in family(OrchestratorError) if not each.__module__.startswith("orchestrator.client.")]
    kinds = {error: next(KINDS[each] for each in error.__mro__ if each in KINDS) for error in ours}
    assert {error for error, kind in kinds.items() if kind is Kind.BROKEN} == {OrchestratorError, errors.Broken}


def test_headers_go_with_their_problem() -> None:
    assert problem_of(Unauthenticated()).headers == (("WWW-Authenticate", "Bearer"),)
    assert problem_of(WrongMethod("PUT", ("GET", "POST"))).headers == (("Allow", "GET, POST"),)
    assert problem_of(TooManyRequests("10", 3)).headers == (("Retry-After", "3"),)
    assert problem_of(errors.JournalUnavailable("x")).headers == (("Retry-After", "1"),)

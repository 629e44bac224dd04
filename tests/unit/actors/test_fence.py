from __future__ import annotations

from actors.batch_book import BatchBook
from orchestrator import actor_codec
from orchestrator.messages import Exchange, Need, bound_exchange
from tests.worker_builders import OWNER, exchange, task

NEED = Need("default", (("l/t/w", 1),))


def a_book() -> BatchBook:
    return BatchBook(lambda: 0.0)


def test_a_worker_tells_whose_batch_it_is_at_and_what_that_needs() -> None:
    book = a_book()
    assert book.fence({}) == (None, None)
    batch = book.open(bound_exchange(exchange(7, task("a"), epoch=3), NEED))
    assert batch is not None
    assert book.fence({}) == ((OWNER, 3, 7), NEED)
    book.close(batch)
    assert book.fence({}) == (None, None)


def test_nothing_of_a_fenced_incarnation_starts_any_more() -> None:
    book = a_book()
    batch = book.open(exchange(1, task("a"), task("b"), epoch=1))
    assert batch is not None
    assert book.start(batch) is not None
    book.fence({OWNER: 2})
    assert book.start(batch) is None, "what waited behind the one that runs does not start"
    book.close(batch)
    assert book.open(exchange(2, task("c"), epoch=1)) is None
    assert book.open(exchange(1, task("d"), epoch=2)) is not None


def test_a_batch_of_plain_tasks_is_the_same_bytes_as_ever() -> None:
    plain = exchange(1, task("a"), epoch=1)
    assert actor_codec.encode_exchange(plain).endswith(b"[]]")
    read = actor_codec.decode_exchange(actor_codec.encode_exchange(plain))
    assert Exchange(*(getattr(read, name) for name in Exchange.__struct_fields__)) == plain

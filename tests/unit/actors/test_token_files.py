"""The operator's files of clients and workers: what is read, what is refused, and that tokens stay in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.token_files import Client, plain_file_tokens, read_clients, read_worker_tokens
from orchestrator.errors import Invalid

Write = Callable[[str], str]
TOKEN = "a-token-of-somebody"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Path of a file with that text."""

    def written(text: str) -> str:
        path = tmp_path / "file.toml"
        path.write_text(text)
        return str(path)

    return written


def test_a_client_has_what_its_table_says(write: Write) -> None:
    path = write(
        f'[acme]\ntoken = "{TOKEN}"\nplan = "gold"\nmonthly_attempts = 5\nwebhook_secret = "s"\ntenant = "t"\n'
        f'[plain]\ntoken = "{TOKEN}"\nlanguages = ["en"]\n'
    )
    acme, plain = read_clients(path)
    assert acme == Client("acme", DIGEST, "t", "gold", 5, "s")
    assert plain == Client("plain", DIGEST, "default", None, None, None)
    assert TOKEN not in repr((acme, plain))
    assert "webhook_secret" not in repr(acme)


def test_a_worker_has_a_digest(write: Write) -> None:
    assert read_worker_tokens(write(f'[gpu-1]\ntoken = "{TOKEN}"\n')) == {"gpu-1": DIGEST}


def test_without_a_file_there_is_nobody() -> None:
    assert (read_clients(""), read_worker_tokens(""), plain_file_tokens("", "")) == ((), {}, {})


def test_plain_tokens_are_told_with_their_place(write: Write) -> None:
    path = write('[a]\ntoken = "x"\n[b]\ntoken = "y"\n')
    assert plain_file_tokens(path) == {f"{path}: [a]": "x", f"{path}: [b]": "y"}


@pytest.mark.parametrize(
    "text",
    [
        f'[a\ntoken = "{TOKEN}"\n',
        f'a = "{TOKEN}"\n',
        "[a]\n",
        '[a]\ntoken = ""\n',
        "[a]\ntoken = 5\n",
        f'[a]\ntoken = "{TOKEN}"\nplan = 5\n',
        f'[a]\ntoken = "{TOKEN}"\ntenant = 5\n',
        f'[a]\ntoken = "{TOKEN}"\nwebhook_secret = 5\n',
        *(f'[a]\ntoken = "{TOKEN}"\nmonthly_attempts = {n}\n' for n in ("-1", "1.5", "true", '"5"')),
    ],
)
def test_a_file_of_clients_that_cannot_be_is_refused_without_repeating_it(write: Write, text: str) -> None:
    path = write(text)
    with pytest.raises(Invalid) as refused:
        read_clients(path)
    assert str(refused.value).startswith(path)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize("name", ['"a b"', '"a.b"', '""', f'"{"x" * 129}"'])
def test_a_worker_cannot_be_called_just_anything(write: Write, name: str) -> None:
    with pytest.raises(Invalid, match="no worker id"):
        read_worker_tokens(write(f'[{name}]\ntoken = "{TOKEN}"\n'))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        read_clients(str(tmp_path / "none.toml"))

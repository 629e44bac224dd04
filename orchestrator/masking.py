"""Secrets out of what is stored: their values become `***`, in every spelling that programs are known to print.

A value is looked for as it is, line by line, as it stands in JSON (also in JSON within JSON), in URLs, in a shell's
quotes, in base64 at any offset, and in hex. Values of fewer than MASKED_MIN characters are left alone: they are in
everything. What a program prints in two pieces, or enciphers, is not found; every CI system has these limits.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from orchestrator.pipeline import MASK

#: characters; shorter values are not looked for
MASKED_MIN = 4


class Mask:
    """Replaces the secrets it was made with."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {form for secret in secrets for form in _forms(secret) if len(form) >= MASKED_MIN}
        #: longest first, so that no piece of a longer one is left over
        self._forms = sorted(found, key=lambda form: (-len(form), form))

    def __bool__(self) -> bool:
        """Is there anything to hide?"""
        return bool(self._forms)

    def text(self, text: str) -> str:
        """The same text without the secrets."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def value(self, value: Any) -> Any:
        """The same JSON value without the secrets, also in the names of its members.

        Where they would still show in the value as it is written, all of it becomes `***`.
        """
        if not self._forms:
            return value
        masked = self._masked(value)
        written = json.dumps(masked, ensure_ascii=False, separators=(",", ":"))
        return masked if self.text(written) == written else MASK

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._masked(member) for name, member in value.items()}
        if isinstance(value, list | tuple):
            return [self._masked(member) for member in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            written = json.dumps(value)
            return value if self.text(written) == written else MASK
        return value


def _forms(secret: str) -> Iterator[str]:
    for part in {secret, secret.strip(), *(line.strip() for line in secret.splitlines())}:
        if len(part) >= MASKED_MIN:
            yield from _spellings(part)


def _spellings(part: str) -> Iterator[str]:
    yield part
    for ascii_only in (False, True):
        once = json.dumps(part, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
    yield shlex.quote(part).strip("'")
    for quoted in (quote(part), quote(part, safe=""), quote_plus(part)):
        yield quoted
        yield _lower_escapes(quoted)
    data = part.encode()
    yield data.hex()
    yield data.hex().upper()
    for offset in range(3):
        yield from _base64(data, offset)


def _lower_escapes(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return "%".join([head, *(piece[:2].lower() + piece[2:] for piece in rest)])


def _base64(data: bytes, offset: int) -> Iterator[str]:
    """The digits that depend on nothing but `data`, when it begins `offset` bytes into a group of three."""
    first, end = -(-offset * 8 // 6), (offset + len(data)) * 8 // 6
    padded = b"\0" * offset + data
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(padded).decode()[first:end]

"""Secrets at rest: what is sealed here can be read with the server's key alone.

AES-256-GCM, a fresh nonce each time; what a secret is about is authenticated with it, so that it cannot be put
elsewhere. Fingerprints are keyed as well: who reads the journal cannot try out which secret makes them. The key is
text, that of `<home>/secret.key` or ORCHESTRATOR_SECRET_KEY; what is used is derived from it, a key for each purpose.

`cryptography` costs each process six megabytes, so it is imported with the first secret.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from functools import cached_property
from typing import TYPE_CHECKING

from actors.clock import Clock
from orchestrator.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: characters
KEY_MIN = 16
_NONCE_BYTES = 12


class Vault:
    """Seals and unseals under one key. Raises Invalid for one that is too short."""

    def __init__(self, key: str, clock: Clock) -> None:
        if len(key) < KEY_MIN:
            raise Invalid(f"ORCHESTRATOR_SECRET_KEY has fewer than {KEY_MIN} characters")
        self._key = key
        self._clock = clock

    @cached_property
    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(_derived(self._key, b"seal"))

    @cached_property
    def _fingerprints(self) -> bytes:
        return _derived(self._key, b"fingerprint")

    def seal(self, plain: bytes, about: str) -> str:
        """`plain`, encrypted, as text."""
        nonce = self._clock.random_bytes(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, plain, about.encode())).decode()

    def unseal(self, sealed: str, about: str) -> bytes:
        """What was sealed. Raises Unavailable: it was sealed under another key, or about something else."""
        from cryptography.exceptions import InvalidTag

        try:
            data = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], about.encode())
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise Unavailable(
                f"the secrets of {about} cannot be read: the server's secret key is another one"
            ) from error

    def fingerprint(self, text: str) -> str:
        """Equal for equal texts, and says nothing about them."""
        return hmac.digest(self._fingerprints, text.encode(), "sha256").hex()


def _derived(key: str, purpose: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt=None, info=b"ray-orchestrator " + purpose).derive(key.encode())

"""Who an endpoint is: a key pair that is made with its process, and the secrets that it shares with each peer.

Only public halves leave a process, so whoever reads how endpoints are told of each other learns no secret. X25519 (RFC
7748) and HKDF-SHA256 (RFC 5869).
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bridge.errors import BridgeError

SECRET_BYTES = 32
_PAIR = b"hetero bridge pair"


class KeyPair:
    """A private key that nobody else sees; `public` is the other half, in hex."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw().hex()

    def agree(self, public: str) -> bytes:
        """What this key and another's public half have in common. Raises ValueError if that is no public half."""
        return self._private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))


class Identity(KeyPair):
    """An endpoint's name and key pair."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def share(self, peer: str, public: str) -> bytes:
        """The secret of this endpoint and a peer, the same for both and known to them alone. Raises BridgeError."""
        ends = sorted([(self.name, self.public), (peer, public)])
        try:
            agreed = self.agree(public)
        except ValueError as error:
            remedy = "run the same release of hetero on all hosts"
            raise BridgeError("key", public, f"no public key of an endpoint: {error}", remedy) from error
        return derive(agreed, _PAIR, repr(ends).encode(), SECRET_BYTES)


def fingerprint(public: str) -> str:
    """A public key for people to compare."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:32]


def derive(secret: bytes, purpose: bytes, salt: bytes, nbytes: int) -> bytes:
    """A key for one purpose, from a secret and what is to be bound to it."""
    return HKDF(SHA256(), nbytes, salt=salt, info=purpose).derive(secret)

"""How two endpoints come to trust each other: HELLO in both directions, then READY under a key that both have derived.

The key of a connection comes from the job's key and both HELLOs, with their fresh nonces, by HKDF (RFC 5869). A READY
that opens proves that its sender knows the job's key and has seen the same two HELLOs, so nothing in them can be
changed on the way, and nothing of an earlier connection can be played again.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge.guard import Sealed
from bridge.streams import MOST_STREAMS
from bridge.wire import wire_error

KEY_BYTES = 32  # of a job's key
_CONNECTION_KEY_BYTES = 16
_INFO = b"hetero bridge 3"

_Number = Annotated[int, Field(ge=0, lt=1 << 64)]
_Name = Annotated[str, Field(max_length=256)]


class Hello(BaseModel):
    """Who speaks, on which lane, and where the two stand.

    instance  of the speaking process; one that has started anew has another
    resumes   the instance of the other side that the speaker has talked to before, or ""
    expects   number of the next frame from that instance
    sealed    whether frames after READY are encrypted too
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    endpoint: _Name
    instance: _Name
    lane: Annotated[int, Field(ge=0, lt=MOST_STREAMS)] = 0
    resumes: _Name = ""
    expects: _Number = 0
    sealed: bool = False
    protocol: Literal[3] = 3
    nonce: Annotated[str, Field(min_length=32, max_length=64)] = Field(default_factory=lambda: secrets.token_hex(32))

    @classmethod
    def parse(cls, text: str) -> Hello:
        """Reads `model_dump_json`. Raises WireError if it is none of ours."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "text"
            raise wire_error(f"hello.{where}", text[:80], error.errors()[0]["msg"]) from None


def derive(job_key: bytes, dialler: str, listener: str, *, we_dialled: bool) -> Sealed:
    """The guard of one connection, from the text of both HELLOs."""
    transcript = hashlib.sha256(dialler.encode() + b"\0" + listener.encode()).digest()
    kdf = HKDF(SHA256(), 2 * _CONNECTION_KEY_BYTES, salt=transcript, info=_INFO)
    keys = kdf.derive(job_key)
    there, back = keys[:_CONNECTION_KEY_BYTES], keys[_CONNECTION_KEY_BYTES:]
    return Sealed(there, back) if we_dialled else Sealed(back, there)

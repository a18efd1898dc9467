"""How two endpoints come to trust each other: HELLO in both directions, then READY under a key that both have derived.

The key of a connection comes from the secret that the two share, from what the key pairs agree on that each has made
for this connection alone, and from both HELLOs, by HKDF (RFC 5869). A READY that opens proves that its sender knows the
secret and has seen the same two HELLOs, so nothing in them can be changed on the way, and nothing of an earlier
connection can be played again. When the connection is over, nobody can derive its key any more.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge.trust.identity import derive
from bridge.trust.seal import Encrypted
from bridge.words.endpoint import MOST_STREAMS
from bridge.words.frame import wire_error

_KEY_BYTES = 16  # of a connection, in one direction
_PURPOSE = b"hetero bridge 5"
_NO_SHARE = "0" * 64  # agrees with no key

_Number = Annotated[int, Field(ge=0, lt=1 << 64)]
_Name = Annotated[str, Field(max_length=256)]


class Hello(BaseModel):
    """Who speaks, on which stream, and where the two stand.

    instance  of the speaking process; one that has started anew has another
    resumes   the instance of the other side that the speaker has talked to before, or ""
    expects   number of the next frame from that instance
    sealed    whether frames after READY are encrypted too
    share     public half of the key pair that the speaker has made for this connection
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    endpoint: _Name
    instance: _Name
    stream: Annotated[int, Field(ge=0, lt=MOST_STREAMS)] = 0
    resumes: _Name = ""
    expects: _Number = 0
    sealed: bool = False
    protocol: Literal[5] = 5
    share: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = _NO_SHARE

    @classmethod
    def parse(cls, text: str) -> Hello:
        """Reads `model_dump_json`. Raises WireError if it is none of ours."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "text"
            raise wire_error(f"hello.{where}", text[:80], error.errors()[0]["msg"]) from None


def connection_seal(secret: bytes, agreed: bytes, dialler: str, listener: str, *, we_dialled: bool) -> Encrypted:
    """The seal of one connection, from the peers' secret, what their shares agree on and the text of both HELLOs."""
    transcript = hashlib.sha256(dialler.encode() + b"\0" + listener.encode()).digest()
    keys = derive(secret + agreed, _PURPOSE, transcript, 2 * _KEY_BYTES)
    there, back = keys[:_KEY_BYTES], keys[_KEY_BYTES:]
    return Encrypted(there, back) if we_dialled else Encrypted(back, there)

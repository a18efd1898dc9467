"""The gate before a codec: measures on the fly what the codec loses, and takes a safer one where that is too much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.codec import Codec

EVERY = 16
"""One message in so many is measured, which takes waiting for the chip."""
HOLD, LONGEST_HOLD = 64, 4096
"""Messages that a safer codec is kept for: doubled each time the wanted one fails again when it is tried anew."""


@dataclass(frozen=True)
class Fallback:
    """`codec` lost `error` of a message, which is more than `limit`: `fallback` is used for so many `messages`."""

    codec: str
    fallback: str
    error: float
    limit: float
    messages: int


class Gate:
    """Of one sender of values of `dtype`. `codec` is the one to use; `due` says whether its error has to be measured.

    A receiver reads off each message which codec it is in, so nobody has to agree to a fallback.
    """

    def __init__(self, wanted: Codec, dtype: str, tell: Callable[[Fallback], None]) -> None:
        self._wanted, self._dtype, self._tell = wanted, dtype, tell
        self.codec, self.due = wanted, False
        self._messages = self._until = 0
        self._hold = HOLD

    def begin(self) -> None:
        """The next message: measured in its turn, and where the wanted codec is tried again."""
        returning = self.codec is not self._wanted and self._messages >= self._until
        if returning:
            self.codec = self._wanted
        self.due = returning or self._messages % EVERY == 0
        self._messages += 1

    def allows(self, error: float) -> bool:
        """Whether the message may go as it was encoded; else `codec` is the next safer one."""
        if error > self.codec.error_limit:
            self._fall_back(error)
            return False
        if self.codec is self._wanted:
            self._hold = HOLD
        return True

    def _fall_back(self, error: float) -> None:
        failed, self.codec = self.codec, self.codec.fallback(self._dtype)
        self.due = True
        self._tell(Fallback(failed.name, self.codec.name, error, failed.error_limit, self._hold))
        self._until = self._messages + self._hold
        self._hold = min(2 * self._hold, LONGEST_HOLD)

"""Messages in a codec: body, then one byte that names the codec it is in. See `bridge/codec.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

import torch

from backends.backend import Backend, Copy
from bridge.codec import BY_TAG, TAG_BYTES, Codec
from bridge.errors import WireError
from bridge.port import Channel
from hetero.engine.bridged import Arrival, Part, slot_tensors
from hetero.engine.carrier import Place, unpack
from hetero.engine.codecs import kernel, worst_error
from hetero.engine.gate import Gate


class CodedWriter:
    """Encodes pieces on the chip, or on a CPU straight into the slot, in the codec that the gate allows."""

    def __init__(self, channel: Channel, backend: Backend, dtype: torch.dtype, numel: int, gate: Gate) -> None:
        self._slots, self._backend, self._gate = slot_tensors(channel, torch.uint8), backend, gate
        self._staging = _staging(channel, backend)
        self._packed = torch.empty(0, dtype=dtype, device=backend.device)
        self._numel = numel

    def write(self, slot: int, pieces: Sequence[torch.Tensor]) -> tuple[int, Iterator[Part]]:
        """The message is one part, and in the slot on return: its length is known only when it is encoded."""
        x, target = self._flat(pieces), self._slots[slot]
        data = target if self._staging is None else self._staging
        self._gate.begin()
        while not self._encoded(x, body := data[: encoded_bytes(self._gate.codec, x)]):
            pass
        if self._staging is not None:
            self._backend.copy_out(body, target[: len(body)]).wait()
        target[len(body)] = self._gate.codec.tag
        nbytes = len(body) + TAG_BYTES
        return nbytes, iter([Part(nbytes, Copy())])

    def _encoded(self, x: torch.Tensor, body: torch.Tensor) -> bool:
        """Whether the message may go in the gate's codec; else the gate has a safer one."""
        kernel_ = kernel(self._gate.codec.name, x.device)
        if not kernel_.encode(x, body):
            return self._gate.allows(inf)
        if not self._gate.due:
            return True
        decoded = torch.empty_like(x)
        kernel_.decode(body, decoded)
        return self._gate.allows(worst_error(x, decoded))

    def _flat(self, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        """The pieces end to end; one that lies so already is not copied."""
        if len(pieces) == 1 and pieces[0].is_contiguous():
            return pieces[0].detach().view(-1)
        if self._packed.numel() < self._numel:
            self._packed = self._packed.new_empty(self._numel)
        start = 0
        for piece in pieces:
            self._packed[start : start + piece.numel()].view(piece.shape).copy_(piece.detach())
            start += piece.numel()
        return self._packed


class CodedReader:
    """Decodes whole messages on the chip."""

    def __init__(self, channel: Channel, backend: Backend, dtype: torch.dtype, numel: int) -> None:
        self._channel, self._backend, self._dtype, self._numel = channel, backend, dtype, numel
        self._slots, self._staging = slot_tensors(channel, torch.uint8), _staging(channel, backend)

    def read(self, message: Arrival, places: Sequence[Place]) -> tuple[list[torch.Tensor], Copy]:
        data = self._slots[message.slot][: message.wait()]
        x = torch.empty(self._numel, dtype=self._dtype, device=self._backend.device)
        codec = self._codec(data, x)
        body, copy = data[:-TAG_BYTES], Copy()
        if self._staging is not None:
            copy = self._backend.copy_in(body, self._staging[: len(body)])
            body = self._staging[: len(body)]
        kernel(codec.name, x.device).decode(body, x)
        return unpack(x, places), copy

    def _codec(self, message: torch.Tensor, x: torch.Tensor) -> Codec:
        codec = BY_TAG.get(int(message[-1])) if len(message) else None
        if codec is None or len(message) != encoded_bytes(codec, x) + TAG_BYTES:
            found = f"{len(message)} bytes in codec {codec.name if codec else 'unknown'}"
            rule = f"a message of {len(x)} values on {self._channel.spec} has another length"
            raise WireError("message", found, rule, "run the same release of hetero on all hosts")
        return codec


def encoded_bytes(codec: Codec, x: torch.Tensor) -> int:
    return codec.encoded_bytes(x.numel(), str(x.dtype).removeprefix("torch."))


def _staging(channel: Channel, backend: Backend) -> torch.Tensor | None:
    """Room for an encoded message on the chip; none is needed where the chip computes in the slot."""
    if backend.device.type == "cpu":
        return None
    return torch.empty(channel.spec.slot_bytes, dtype=torch.uint8, device=backend.device)

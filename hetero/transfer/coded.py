"""Messages in a codec: body, then one byte that names the codec it is in. See `bridge/codec.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from backends.backend import Backend, Copy
from bridge.codec import BY_TAG, TAG_BYTES, Codec
from bridge.errors import WireError
from bridge.port.port import Channel
from bridge.words.channel import PART_BYTES
from hetero.transfer.codecs import kernel, worst_error
from hetero.transfer.gate import Gate
from hetero.transfer.messages import Destination, unpack
from hetero.transfer.slot_io import Arrival, CopySequence, FilledPart, slot_tensors


class CodedWriter:
    """Encodes pieces in the codec that the gate allows: on the chip, whose bytes are then copied to the slot part by
    part, or straight into the slot where the chip computes there."""

    def __init__(
        self,
        channel: Channel,
        backend: Backend,
        dtype: torch.dtype,
        numel: int,
        gate: Gate,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._slots, self._backend, self._gate = slot_tensors(channel, torch.uint8), backend, gate
        self._packed = torch.empty(0, dtype=dtype, device=backend.device)
        self._numel, self._part_bytes = numel, part_bytes

    def write(self, slot: int, pieces: Sequence[torch.Tensor]) -> tuple[int, Iterator[FilledPart]]:
        """Waits for the chip only where it is the gate's turn to measure."""
        target, in_slot = self._slots[slot], computes_in_slots(self._backend)
        body = self._encode(self._flat(pieces), target if in_slot else None)
        target[len(body)] = self._gate.codec.tag
        nbytes = len(body) + TAG_BYTES
        return nbytes, iter([FilledPart(nbytes, Copy())]) if in_slot else self._parts(body, target)

    def _encode(self, x: torch.Tensor, slot: torch.Tensor | None) -> torch.Tensor:
        """The bytes, in new memory if not in the slot."""
        self._gate.begin()
        while True:
            nbytes = encoded_bytes(self._gate.codec, x)
            body = torch.empty(nbytes, dtype=torch.uint8, device=x.device) if slot is None else slot[:nbytes]
            kernel(self._gate.codec.name, x.device).encode(x, body)
            if not self._gate.due or self._gate.allows(self._error(x, body)):
                return body

    def _error(self, x: torch.Tensor, body: torch.Tensor) -> float:
        decoded = torch.empty_like(x)
        kernel(self._gate.codec.name, x.device).decode(body, decoded)
        return worst_error(x, decoded)

    def _parts(self, body: torch.Tensor, target: torch.Tensor) -> Iterator[FilledPart]:
        """The tag, which the host has written, goes with the last one."""
        end = 0
        for part in body.split(self._part_bytes):
            begin, end = end, end + len(part)
            tag_bytes = TAG_BYTES if end == len(body) else 0
            yield FilledPart(end + tag_bytes, self._backend.copy_out(part, target[begin:end]))

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
    """Copies what is in the slot to the chip while the rest is still under way, and decodes all of it there; straight
    from the slot where the chip computes there."""

    def __init__(
        self,
        channel: Channel,
        backend: Backend,
        dtype: torch.dtype,
        numel: int,
        wanted: Codec,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._channel, self._backend, self._dtype, self._numel = channel, backend, dtype, numel
        self._slots, self._part_bytes = slot_tensors(channel, torch.uint8), part_bytes
        self._usual_bytes = wanted.encoded_bytes(numel, dtype_name(dtype)) + TAG_BYTES

    def read(self, message: Arrival, destinations: Sequence[Destination]) -> tuple[list[torch.Tensor], Copy]:
        slot, copies = self._slots[message.slot], list[Copy]()
        body = slot if computes_in_slots(self._backend) else self._copied(message, slot, copies)
        nbytes = message.wait()
        x = torch.empty(self._numel, dtype=self._dtype, device=self._backend.device)
        codec = self._codec(slot[:nbytes], x)
        kernel(codec.name, x.device).decode(body[: nbytes - TAG_BYTES], x)
        return unpack(x, destinations), CopySequence(copies)

    def _copied(self, message: Arrival, slot: torch.Tensor, copies: list[Copy]) -> torch.Tensor:
        """The message on the chip. One that is longer than usual, in a safer codec, begins anew in a larger room."""
        room, begin = self._backend.landing((self._usual_bytes,), slot.dtype), 0
        while (end := min(message.wait(begin + self._part_bytes), begin + self._part_bytes)) > begin:
            if end > len(room):
                room, begin = self._backend.landing(slot.shape, slot.dtype), 0
                continue
            copies.append(self._backend.copy_in(slot[begin:end], room[begin:end], fresh=True))
            begin = end
        return room

    def _codec(self, message: torch.Tensor, x: torch.Tensor) -> Codec:
        codec = BY_TAG.get(int(message[-1])) if len(message) else None
        if codec is None or len(message) != encoded_bytes(codec, x) + TAG_BYTES:
            found = f"{len(message)} bytes in codec {codec.name if codec else 'unknown'}"
            rule = f"a message of {len(x)} values on {self._channel.spec} has another length"
            raise WireError("message", found, rule, "run the same release of hetero on all hosts")
        return codec


def encoded_bytes(codec: Codec, x: torch.Tensor) -> int:
    return codec.encoded_bytes(x.numel(), dtype_name(x.dtype))


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def computes_in_slots(backend: Backend) -> bool:
    """Host memory is a CPU's own."""
    return backend.device.type == "cpu"

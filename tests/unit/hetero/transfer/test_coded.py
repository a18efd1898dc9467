"""Writer and reader of coded messages, over slots in plain memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends.cpu import CpuBackend
from bridge.codec import BLOCK, CODECS, Codec
from bridge.errors import WireError
from hetero.transfer import coded
from hetero.transfer.coded import CodedReader, CodedWriter, dtype_name
from hetero.transfer.gate import Fallback, Gate
from hetero.transfer.messages import Destination

PART_BYTES = 600
ALL = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.name)


@pytest.fixture(params=["in the slot", "on a chip"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of a message: made in the slot, and made elsewhere and copied, as a chip does."""
    if request.param == "on a chip":
        monkeypatch.setattr(coded, "computes_in_slots", lambda _: False)


class Line:
    """Both ends of a channel whose slots are the same memory."""

    def __init__(self, codec: Codec, numel: int, dtype: torch.dtype = torch.float32) -> None:
        size = codec.slot_bytes(numel, str(dtype).removeprefix("torch."))
        self.memory = [bytearray(size), bytearray(size)]
        spec = SimpleNamespace(slots=2, slot_bytes=size)
        channel: Any = SimpleNamespace(spec=spec, slots=SimpleNamespace(view=lambda n: memoryview(self.memory[n])))
        self.numel = numel
        self.told: list[Fallback] = []
        gate = Gate(codec, dtype_name(dtype), self.told.append)
        self.writer = CodedWriter(channel, CpuBackend(), dtype, numel, gate, PART_BYTES)
        self.reader = CodedReader(channel, CpuBackend(), dtype, numel, codec, PART_BYTES)

    def carry(self, *pieces: torch.Tensor, slot: int = 0) -> tuple[torch.Tensor, int]:
        nbytes, parts = self.writer.write(slot, pieces)
        ends = [end for end, _ in parts]
        assert ends == sorted(set(ends))
        assert ends[-1] == nbytes
        return self.read(slot, nbytes), nbytes

    def read(self, slot: int, nbytes: int) -> torch.Tensor:
        message: Any = SimpleNamespace(slot=slot, wait=lambda most=nbytes: min(most, nbytes))
        [found], copy = self.reader.read(message, [Destination((self.numel,))])
        assert copy.done()
        return found


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pieces_arrive_end_to_end(codec: Codec, dtype: torch.dtype) -> None:
    whole = torch.randn(12, 100).to(dtype)
    pieces = [whole[:5], whole[5:, :30], whole[5:, 30:]]
    line = Line(codec, whole.numel(), dtype)
    for slot in (0, 1, 0):
        found, nbytes = line.carry(*pieces, slot=slot)
        flat = torch.cat([piece.reshape(-1) for piece in pieces])
        assert nbytes == codec.encoded_bytes(whole.numel(), str(dtype).removeprefix("torch.")) + 1
        assert torch.allclose(found.float(), flat.float(), atol=2 * codec.error_bound * float(flat.abs().max()))
        assert codec.name != "none" or torch.equal(found, flat)
    assert line.told == []


@ALL
def test_a_message_of_nothing(codec: Codec) -> None:
    found, nbytes = Line(codec, 0).carry(torch.empty(0, 7))
    assert found.shape == (0,)
    assert nbytes == 1


def test_a_message_lies_in_memory_of_its_own() -> None:
    line = Line(CODECS["bf16"], 8)
    first, _ = line.carry(torch.ones(8))
    line.carry(torch.zeros(8))
    assert torch.equal(first, torch.ones(8))


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_an_outlier_makes_the_message_safer_and_is_told(name: str) -> None:
    x = torch.randn(4 * BLOCK)
    x[700] = 1e9
    line = Line(CODECS[name], x.numel())
    found, nbytes = line.carry(x)
    assert nbytes == CODECS["bf16"].encoded_bytes(x.numel(), "float32") + 1
    assert torch.equal(found, x.bfloat16().float())
    (event,) = line.told
    assert (event.codec, event.fallback) == (name, "bf16")
    assert event.error > event.limit == CODECS[name].error_limit


@pytest.mark.parametrize("name", ["int8", "fp8"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_arrives_as_such_measured_or_not(name: str, bad: float) -> None:
    x = torch.ones(2 * BLOCK)
    x[3] = bad
    measured, unmeasured = Line(CODECS[name], x.numel()), Line(CODECS[name], x.numel())
    found, _ = measured.carry(x)
    assert torch.equal(found.isfinite(), x.isfinite())
    assert measured.told[0].fallback == "bf16"
    unmeasured.carry(torch.ones(2 * BLOCK))
    found, _ = unmeasured.carry(x)
    assert not found[:BLOCK].isfinite().any()
    assert torch.equal(found[BLOCK:], x[BLOCK:])
    assert unmeasured.told == []


@pytest.mark.parametrize("message", [b"", b"\x09", b"\x00" * 7 + b"\x02", b"\x00" * 40 + b"\x01"])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    line = Line(CODECS["int8"], 10)
    line.memory[0][: len(message)] = message
    with pytest.raises(WireError, match="message"):
        line.read(0, len(message))

"""What it gives that a message leaves, and is taken, part by part: tensor to tensor, against whole messages.

    python -m benchmarks.parts [--json] [--sizes 1 16 64 256] [--rounds N]

From when a rank begins to copy a tensor into a slot until the other rank has it in a tensor of its own and has said so:
the engine's own sender and receiver over both endpoints, one message after the other. Whole messages are carried by the
same, with parts as long as a message. Both take turns in every round; `_ms` is the median over the rounds, `_vs_whole`
the median of their ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack, closing
from statistics import median
from typing import Any

from benchmarks.carriers import A, B, Bridge, Work
from benchmarks.report import print_report
from benchmarks.usage import other_work
from bridge.port.port import Port
from bridge.rank import RankId
from bridge.words.channel import PART_BYTES, ChannelSpec

MIB = 1 << 20
PER_TURN_BYTES = 256 * MIB
SLOTS = 2


class InParts(Bridge):
    """Tensor to tensor."""

    part_bytes = PART_BYTES

    @classmethod
    def open_end(cls, role: str, nbytes: int, part: Any) -> Work:
        return _Ends(Port(part, A if role == "send" else B), nbytes, cls.part_bytes).work(role)


class Whole(InParts):
    part_bytes = 1 << 40


class ShmInParts(InParts):
    scheme = "shm"


class ShmWhole(Whole):
    scheme = "shm"


class _Ends:
    """A rank's ends of two channels: the messages' own, and one for a word when one is there."""

    def __init__(self, port: Port, nbytes: int, part_bytes: int) -> None:
        import torch

        from backends.cpu import CpuBackend
        from hetero.transfer.copy_queue import CopyQueue
        from hetero.transfer.waits import Waits

        torch.set_num_threads(1)
        self._port, self._part_bytes = port, part_bytes
        self._backend = CpuBackend()
        self._common = CopyQueue(self._backend, "benchmark", print), Waits(self._backend)
        self._tensors = [torch.ones(nbytes, dtype=torch.uint8) for _ in range(SLOTS)]
        self._word = torch.ones(1, dtype=torch.uint8)

    def work(self, role: str) -> Work:
        if role == "send":
            message, word = self._sender(A, B, "message"), self._receiver(B, A, "word")
        else:
            word, message = self._sender(B, A, "word"), self._receiver(A, B, "message")

        from hetero.transfer.messages import Destination

        def send(size: int, count: int, _: int) -> None:
            for n in range(count):
                word.post()
                message.send_pieces([self._tensors[n % SLOTS][:size]])
                word.receive_pieces([Destination((1,), self._word)])

        def receive(size: int, count: int, _: int) -> None:
            for n in range(count):
                message.post()
                message.receive_pieces([Destination((size,), self._tensors[n % SLOTS][:size])])
                word.send_pieces([self._word])

        return send if role == "send" else receive

    def _sender(self, source: RankId, target: RankId, name: str) -> Any:
        import torch

        from hetero.transfer.bridge_messages import BridgeSender
        from hetero.transfer.slot_io import PlainWriter

        channel = self._port.open(self._spec(source, target, name))
        return BridgeSender(channel, PlainWriter(channel, self._backend, torch.uint8, self._part_bytes), *self._common)

    def _receiver(self, source: RankId, target: RankId, name: str) -> Any:
        import torch

        from hetero.transfer.bridge_messages import BridgeReceiver
        from hetero.transfer.slot_io import PlainReader

        channel = self._port.open(self._spec(source, target, name))
        reader = PlainReader(channel, self._backend, torch.uint8, self._part_bytes)
        return BridgeReceiver(channel, reader, self._backend, *self._common)

    def _spec(self, source: RankId, target: RankId, name: str) -> ChannelSpec:
        nbytes = self._tensors[0].nbytes if name == "message" else self._word.nbytes
        return ChannelSpec(0, "activation", name, source, target, nbytes, SLOTS)


def measure(name: str, kinds: Sequence[type[Bridge]], sizes: Sequence[int], rounds: int) -> dict[str, float]:
    """Of each size, milliseconds of a message in parts, and their ratio to a whole one's."""
    figures = {}
    with ExitStack() as stack:
        carriers = [stack.enter_context(closing(kind(max(sizes) * MIB))) for kind in kinds]
        for mib in sizes:
            for carrier in carriers:
                carrier.cross(mib * MIB, SLOTS)
            found = [_round(carriers, mib * MIB, turn) for turn in range(rounds)]
            figures[f"{name}_{mib}MiB_ms"] = median(parts for parts, _ in found) * 1e3
            figures[f"{name}_{mib}MiB_vs_whole"] = median(parts / whole for parts, whole in found)
    return figures


def _round(carriers: Sequence[Bridge], nbytes: int, turn: int) -> list[float]:
    """Seconds of a message of each; who comes first changes from round to round."""
    count = max(2, min(50, PER_TURN_BYTES // nbytes))
    seconds = [0.0] * len(carriers)
    for n in range(len(carriers))[:: 1 if turn % 2 else -1]:
        seconds[n] = carriers[n].cross(nbytes, count) / count
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 16, 64, 256], help="in MiB")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    void, figures = other_work(), dict[str, float]()
    for name, kinds in (("zmq", (InParts, Whole)), ("shm", (ShmInParts, ShmWhole))):
        figures |= measure(name, kinds, options.sizes, options.rounds)
    print_report("parts", figures, emulated=False, void=void, quiet=options.json)


if __name__ == "__main__":
    main()

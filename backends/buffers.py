"""What a family's collective library takes of a chip's memory for each communicator. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class CommunicatorBytes:
    """`group`: of a communicator that collectives go over. `peer`: in addition, for each other member of one that
    all-to-alls go over. `pair`: of a communicator that messages of two chips go over. All are taken at first use.
    `source` says who says so; `estimated` that nobody official does."""

    group: int
    peer: int
    pair: int
    source: str
    estimated: bool = False


_NOTHING = CommunicatorBytes(0, 0, 0, "host memory")
_BY_FAMILY = {
    "ascend": CommunicatorBytes(
        group=2 * 200 * MIB,
        peer=0,
        pair=2 * 20 * MIB,
        source="HCCL_BUFFSIZE, 200 MB by default, twice for each communicator (CANN 8.5, HCCL guide 76); "
        "P2P_HCCL_BUFFSIZE, 20 MB by default, twice for each pair (Ascend Extension for PyTorch 7.1.0)",
    ),
    "cuda": CommunicatorBytes(
        group=450 * MIB,
        peer=450 * MIB,
        pair=450 * MIB,
        source="3.28 GB for the seven peers of an all-to-all on 8 H100, with 32 channels to each (NVIDIA/nccl 1685); "
        "more communicators and channels take more (nccl 864, 986)",
        estimated=True,
    ),
    "kunlun": CommunicatorBytes(
        group=450 * MIB,
        peer=450 * MIB,
        pair=450 * MIB,
        source="NCCL's, whose interface BKCL has: nothing is published",
        estimated=True,
    ),
}


def communicator_bytes(family: str) -> CommunicatorBytes:
    """Nothing for a family that is not known to take any."""
    return _BY_FAMILY.get(family, _NOTHING)

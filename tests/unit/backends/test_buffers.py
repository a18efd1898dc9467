from __future__ import annotations

from backends.buffers import MIB, communicator_bytes


def test_a_library_takes_what_its_documents_say() -> None:
    found = communicator_bytes("ascend")
    assert (found.group, found.pair, found.estimated) == (400 * MIB, 40 * MIB, False)
    assert communicator_bytes("cuda").estimated
    assert communicator_bytes("cpu").group == communicator_bytes("cpu").pair == 0

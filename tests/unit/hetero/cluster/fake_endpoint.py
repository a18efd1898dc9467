"""Speaks the endpoint's protocol and carries nothing: `python -m tests.unit.hetero.cluster.fake_endpoint --fd N`."""

from __future__ import annotations

import sys

from bridge.errors import PipeClosed
from bridge.port.pipe import Pipe
from bridge.words.endpoint import (
    Attach,
    Attached,
    Introduce,
    Introduced,
    LinkProbed,
    Listen,
    Listening,
    PeerSpec,
    ProbeLink,
)

BYTES_PER_S, MOST_STREAMS = 5e7, 3
"""Of one stream, and how many make a link faster. What a probe costs tells how long it was."""


def main() -> None:
    control = Pipe.from_fd(int(sys.argv[sys.argv.index("--fd") + 1]))
    ports: list[int] = []
    peers: dict[str, PeerSpec] = {}
    while True:
        try:
            word, fds = control.recv_word()
        except PipeClosed:
            return
        match word:
            case Listen(host=host, schemes=schemes):
                control.send_word(Listening({scheme: f"{scheme}://{host}:1" for scheme in schemes}, "5e" * 32))
            case Attach(rank=rank):
                ports += fds
                control.send_word(Attached(rank))
            case Introduce():
                peers |= word.peers
                control.send_word(Introduced())
            case ProbeLink(peer=peer, nbytes=nbytes):
                rate = BYTES_PER_S * min(peers[peer].streams, MOST_STREAMS)
                control.send_word(LinkProbed(peer, rate, 0.04, cpu_s_per_gb=nbytes))


if __name__ == "__main__":
    main()

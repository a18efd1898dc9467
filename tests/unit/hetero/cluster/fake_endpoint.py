"""Speaks the endpoint's protocol and carries nothing: `python -m tests.unit.hetero.cluster.fake_endpoint --fd N`."""

from __future__ import annotations

import sys

from bridge.errors import PipeClosed
from bridge.pipe import Pipe

BYTES_PER_S, MOST_LANES = 5e7, 3
"""Of one lane, and how many make a link faster."""


def main() -> None:
    control = Pipe.from_fd(int(sys.argv[sys.argv.index("--fd") + 1]))
    ports: list[int] = []
    lanes: dict[str, int] = {}
    while True:
        try:
            message, fds = control.recv()
        except PipeClosed:
            return
        match message["do"]:
            case "listen":
                uris = {scheme: f"{scheme}://{message['host']}:1" for scheme in message["schemes"]}
                control.send({"report": "listening", "uris": uris, "key": "5e" * 32})
            case "attach":
                ports += fds
                control.send({"report": "attached", "rank": message["rank"]})
            case "introduce":
                lanes |= {name: facts["lanes"] for name, facts in message["peers"].items()}
                control.send({"report": "introduced"})
            case "probe":
                rate = BYTES_PER_S * min(lanes[message["peer"]], MOST_LANES)
                found = {"bytes_per_s": rate, "rtt_s": 0.04, "cpu_s_per_gb": 1.0, "bytes": message["bytes"]}
                control.send({"report": "probed", "peer": message["peer"], **found})
            case "stop":
                return


if __name__ == "__main__":
    main()

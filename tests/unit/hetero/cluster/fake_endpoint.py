"""Speaks the endpoint's protocol and carries nothing: `python -m tests.unit.hetero.cluster.fake_endpoint --fd N`."""

from __future__ import annotations

import sys

from bridge.errors import PipeClosed
from bridge.pipe import Pipe

BYTES_PER_S = 5e7


def main() -> None:
    control = Pipe.from_fd(int(sys.argv[sys.argv.index("--fd") + 1]))
    ports: list[int] = []
    while True:
        try:
            message, fds = control.recv()
        except PipeClosed:
            return
        match message["do"]:
            case "listen":
                uris = {scheme: f"{scheme}://{message['host']}:1" for scheme in message["schemes"]}
                control.send({"report": "listening", "uris": uris})
            case "attach":
                ports += fds
                control.send({"report": "attached", "rank": message["rank"]})
            case "introduce":
                control.send({"report": "introduced"})
            case "probe":
                found = {"bytes_per_s": BYTES_PER_S, "rtt_s": 0.001, "cpu_s_per_gb": 1.0, "bytes": message["bytes"]}
                control.send({"report": "probed", "peer": message["peer"], **found})
            case "stop":
                return


if __name__ == "__main__":
    main()

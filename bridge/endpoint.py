"""The endpoint: the one process of a pool and host that talks to other hosts. `python -m bridge.endpoint --fd N`.

Its agent drives it through a control pipe at descriptor N, ranks through their ports. It imports neither torch nor Ray
and ends at once when the control pipe closes. Messages on the control pipe:

    {"do": "listen", "endpoint": "nvidia@0", "host": "10.0.0.1", "schemes": ["zmq", "grpc"]}
        -> {"report": "listening", "uris": {"zmq": "zmq://10.0.0.1:4711", ...}, "key": public key, in hex}
    {"do": "attach", "rank": ["nvidia", 0]} and the descriptor of the rank's port
        -> {"report": "attached", "rank": ["nvidia", 0]}
    {"do": "introduce", "peers": {"ascend@0": {"uri": ..., "key": ..., "lanes": 1, "sealed": true,
     "pace": {"bytes_per_s": ..., "delay_s": ...} or null}},
     "routes": {"ascend:0": "ascend@0"}}
        -> {"report": "introduced"}
    {"do": "stats"} -> {"report": "stats", "peers": {"ascend@0": {...}}}
    {"do": "probe", "peer": "ascend@0", "bytes": 268435456}
        -> {"report": "probed", "peer": "ascend@0", "bytes_per_s": ..., "rtt_s": ..., "cpu_s_per_gb": ...}
    {"do": "stop"}
Unasked: {"report": "peer_lost", "peer", "cause"}, {"report": "refused", "from", "cause", "count"} of strangers at the
door, and {"report": "failed", "error": {...}}.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import traceback
from collections.abc import Callable
from typing import Any

from bridge.errors import BridgeError, PipeClosed, to_dict
from bridge.exchange import Exchange
from bridge.link import Link
from bridge.linux import die_with_parent, keep_memory, take_precedence
from bridge.loop import Loop
from bridge.network import Network
from bridge.pipe import Message, Pipe
from bridge.rank import RankId

PATIENCE_S = 10.0


class Endpoint:
    """Owns the control pipe. `run` may be called in a thread of its own; nothing else may be called then.

    patience_s  how long a peer may be silent before it is lost; one whose process dies is lost within milliseconds
    at_eof      called when the control pipe closes; the default ends `run`
    """

    def __init__(
        self, control: Pipe, *, patience_s: float = PATIENCE_S, at_eof: Callable[[], object] | None = None
    ) -> None:
        self._control = control
        self._loop = Loop()
        self._exchange = Exchange(self._loop, self._link_to)
        self._network = Network(self._loop, self._exchange, self._report, patience_s)
        self._at_eof = at_eof or self._loop.stop
        self._loop.watch(control.fileno(), self._turn)

    def run(self) -> None:
        """Serves until told to stop or the control pipe closes. What breaks it is reported, then raised."""
        try:
            self._loop.run()
        except Exception as error:
            self._report({"report": "failed", "error": _plain(error)})
            raise
        finally:
            self._network.close()
            self._exchange.close()
            self._loop.close()
            self._control.close()

    def _turn(self) -> None:
        try:
            for message, fds in self._control.drain():
                self._on_message(message, fds)
        except PipeClosed:
            self._at_eof()

    def _on_message(self, message: Message, fds: list[int]) -> None:
        try:
            self._obey(message, fds)
        except BridgeError as error:
            self._report({"report": "failed", "error": to_dict(error)})

    def _obey(self, message: Message, fds: list[int]) -> None:
        match message["do"]:
            case "listen":
                uris = self._network.listen(message["endpoint"], message["host"], message["schemes"])
                self._report({"report": "listening", "uris": uris, "key": self._network.identity.public})
            case "attach":
                self._exchange.attach(RankId(*message["rank"]), fds[0])
                self._report({"report": "attached", "rank": message["rank"]})
            case "introduce":
                self._network.introduce(message["peers"], message["routes"])
            case "stats":
                self._report({"report": "stats", "peers": self._network.stats()})
            case "probe":
                self._network.probe(message["peer"], message["bytes"])
            case "stop":
                self._loop.stop()
            case unknown:
                raise BridgeError("do", unknown, "no such request", "agent and endpoint must be of one release")

    def _link_to(self, rank: RankId) -> Link | None:
        return self._network.link_to(rank, local=rank in self._exchange)

    def _report(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(message)
        except PipeClosed:
            self._at_eof()


def _plain(error: Exception) -> dict[str, Any]:
    text = traceback.format_exc()
    return to_dict(BridgeError("endpoint", repr(error), "a fault of this program", "please report it")) | {
        "type": type(error).__name__,
        "traceback": text,
    }


def main() -> None:
    """Runs as a process of its own. Ends without cleaning up: the kernel does it faster."""
    parser = argparse.ArgumentParser(description="The bridge endpoint of one pool on one host; its agent starts it.")
    parser.add_argument("--fd", type=int, required=True, help="descriptor of the control pipe")
    fd = parser.parse_args().fd
    os.set_inheritable(fd, False)
    die_with_parent()
    keep_memory()
    take_precedence()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else strangers write to our log whatever they like
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    status = 1
    try:
        Endpoint(Pipe.from_fd(fd), at_eof=lambda: os._exit(0)).run()
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()

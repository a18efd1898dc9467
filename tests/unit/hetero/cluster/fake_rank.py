"""A rank without torch: speaks the rank protocol, and dies, hangs or fails at a step that its spec names.

spec: {"epoch", "start", "steps", "step_s", "save_every", "fingerprints": {rank: text}, "idle": [rank],
       "faults": {rank: [step, fault]}}
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from bridge.pipe import Pipe
from bridge.rank import RankId

TIMES = ("forward_s", "backward_s", "weight_s", "sync_s", "optimizer_s", "bridge_wait_s", "bubble_s")
NOTHING = dict.fromkeys((*TIMES, "peak_memory_bytes"), 0) | {"sent": {}, "received": {}}


class PeerLost(Exception):
    """What the real bridge raises when somebody else has died."""


def main(rank: RankId, agent: Pipe, port: Any) -> None:
    FakeRank(rank, agent).run()


class FakeRank:
    def __init__(self, rank: RankId, agent: Pipe) -> None:
        self.rank, self.agent = rank, agent
        self.spec: dict[str, Any] = {}
        self.step = 0
        self.fds: list[int] = []

    def run(self) -> None:
        self.tell("ready", pid=os.getpid(), python=sys.version, torch=None)
        while True:
            message, self.fds = self.agent.recv()
            if message["do"] == "stop":
                return
            getattr(self, message["do"])(message)

    def tell(self, report: str, **data: Any) -> None:
        self.agent.send({"report": report, **data})

    def open_world(self, message: dict[str, Any]) -> None:
        assert self.rank.index == 0
        self.tell("world", address=f"{message['host']}:{message['size']}")

    def join_world(self, message: dict[str, Any]) -> None:
        """In memory that it is given, or at an address under a secret."""
        if message["address"]:
            assert message["address"].endswith(f":{message['size']}")
            assert message["secret"]
            assert not self.fds
        else:
            (memory,) = self.fds
            os.close(memory)
        self.tell("joined")

    def calibrate(self, message: dict[str, Any]) -> None:
        self.tell("calibrated", measurements=[{"rank": str(self.rank), **message["spec"]}])

    def configure(self, message: dict[str, Any]) -> None:
        self.spec = message["spec"]
        self.step = self.spec.get("start", 0)
        fingerprint = self.spec.get("fingerprints", {}).get(str(self.rank))
        active = str(self.rank) not in self.spec.get("idle", ())
        self.fault(-1)
        self.tell("configured", epoch=self.spec["epoch"], fingerprint=fingerprint, parameters=7, active=active)

    def lease(self, message: dict[str, Any]) -> None:
        assert message["epoch"] == self.spec["epoch"]
        while self.step < message["until"]:
            self.run_step()

    def run_step(self) -> None:
        start = time.time()
        time.sleep(self.spec.get("step_s", 0.0))
        self.fault(self.step)
        done = self.step + 1
        every = self.spec.get("save_every", 0)
        if every and done % every == 0:
            piece = {"name": f"{self.rank}@{done}"} if self.rank.index == 0 else None
            self.tell("saved", step=done, piece=piece)
        place = {"pipeline": 0, "stage": 0, "tp_rank": self.rank.index, "host": "here"}
        times = {"start": start, "end": time.time(), **NOTHING, "overrun": False, "totals": None, "spans": None}
        self.tell("step", step=self.step, epoch=self.spec["epoch"], rank=list(self.rank), **place, **times)
        self.step = done

    def fault(self, step: int) -> None:
        at, what = self.spec.get("faults", {}).get(str(self.rank), (None, ""))
        if at != step:
            return
        match what:
            case "kill" | "stop" | "abort":
                os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "abort": signal.SIGABRT}[what])
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(1000)
            case "fail":
                raise ValueError("a mistake of its own")
            case "peer lost":
                raise PeerLost("channel activation: peer is gone")
            case "closed by peer":
                raise RuntimeError("[enforce fail] Connection closed by peer [127.0.0.1]:4711")

"""A rank without torch: says what a rank says, and dies, hangs or fails at a step that its spec names.

spec: {"epoch", "start", "steps", "step_s", "save_every", "fingerprints": {rank: text}, "idle": [rank],
       "faults": {rank: [step, fault]}}
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.words.endpoint import Stop
from bridge.words.word import Answer, Word
from hetero.words.orders import (
    Calibrate,
    Calibrated,
    Configure,
    Configured,
    JoinWorld,
    Lease,
    OpenWorld,
    Ready,
    Saved,
    WorldJoined,
    WorldOpened,
)
from hetero.words.step import StepReport

TIMES = ("forward_s", "backward_s", "weight_s", "sync_s", "optimizer_s", "bridge_wait_s", "bubble_s")
NOTHING: dict[str, Any] = {**dict.fromkeys(TIMES, 0.0), "peak_memory_bytes": 0, "sent": {}, "received": {}}


class PeerLost(Exception):
    """What the real bridge raises when somebody else has died."""


@dataclass(frozen=True)
class Babble(Word):
    """What no agent has heard of."""


def main(rank: RankId, agent: Pipe, port: Any) -> None:
    FakeRank(rank, agent).run()


class FakeRank:
    def __init__(self, rank: RankId, agent: Pipe) -> None:
        self.rank, self.agent = rank, agent
        self.spec: dict[str, Any] = {}
        self.step = 0

    def run(self) -> None:
        self.agent.send_word(Ready())
        while True:
            word, fds = self.agent.recv_word()
            if isinstance(word, Stop):
                return
            if (answer := self.obey(word, fds)) is not None:
                self.agent.send_word(answer)

    def obey(self, word: Word, fds: list[int]) -> Answer | None:
        match word:
            case OpenWorld():
                assert self.rank.index == 0
                return WorldOpened(f"{word.host}:{word.size}")
            case JoinWorld():
                return self.join_world(word, fds)
            case Calibrate():
                return Calibrated(({"rank": str(self.rank), **word.spec},))
            case Configure():
                return self.configure(word)
            case Lease():
                self.lease(word)
        return None

    def join_world(self, order: JoinWorld, fds: list[int]) -> WorldJoined:
        """In memory that it is given, or at an address under a secret."""
        if order.address:
            assert order.address.endswith(f":{order.size}")
            assert order.secret
            assert not fds
        else:
            (memory,) = fds
            os.close(memory)
        return WorldJoined()

    def configure(self, order: Configure) -> Configured:
        self.spec, self.step = order.spec, order.start
        fingerprint = self.spec.get("fingerprints", {}).get(str(self.rank))
        active = str(self.rank) not in self.spec.get("idle", ())
        self.fault(-1)
        return Configured(order.epoch, active, fingerprint=fingerprint)

    def lease(self, lease: Lease) -> None:
        assert lease.epoch == self.spec["epoch"]
        while self.step < lease.until:
            self.run_step()

    def run_step(self) -> None:
        start = time.time()
        time.sleep(self.spec.get("step_s", 0.0))
        self.fault(self.step)
        done = self.step + 1
        every = self.spec.get("save_every", 0)
        if every and done % every == 0:
            piece = {"name": f"{self.rank}@{done}"} if self.rank.index == 0 else None
            self.agent.send_word(Saved(done, piece))
        place = {"rank": self.rank, "pipeline": 0, "stage": 0, "tp_rank": self.rank.index}
        times = {"start": start, "end": time.time(), **NOTHING}
        self.agent.send_word(StepReport(self.step, self.spec["epoch"], **place, **times, overrun=False))
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
            case "babble" | "command":
                self.agent.send_word({"babble": Babble(), "command": Stop()}[what])
                time.sleep(1000)
            case "fail":
                raise ValueError("a mistake of its own")
            case "peer lost":
                raise PeerLost("channel activation: peer is gone")
            case "closed by peer":
                raise RuntimeError("[enforce fail] Connection closed by peer [127.0.0.1]:4711")

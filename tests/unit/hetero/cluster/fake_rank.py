"""A rank without torch: says what a rank says, and dies, hangs or fails at a step that its script names.

The script is what its spec has for the path of a text:
{"step_s", "save_every", "fingerprints": {rank: text}, "idle": [rank], "faults": {rank: [step, fault]}}
"""

from __future__ import annotations

import json
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
    TimedUnit,
    WorldJoined,
    WorldOpened,
)
from hetero.words.piece import StoredPiece
from hetero.words.step import StepReport

TIMES = ("forward_s", "backward_s", "weight_s", "optimizer_s", "bridge_wait_s", "bubble_s", "data_s")
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
        self.script: dict[str, Any] = {}
        self.epoch, self.step = -1, 0

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
                return WorldOpened(f"{word.host}:{word.pool.count}")
            case JoinWorld():
                return self.join_world(word, fds)
            case Calibrate():
                return Calibrated((TimedUnit(str(self.rank), 1, "attention", 1.0, 1.0),))
            case Configure():
                return self.configure(word)
            case Lease():
                self.lease(word)
        return None

    def join_world(self, order: JoinWorld, fds: list[int]) -> WorldJoined:
        """In memory that it is given, or at an address under a secret."""
        if order.address:
            assert order.address.endswith(f":{order.pool.count}")
            assert order.secret
            assert not fds
        else:
            (memory,) = fds
            os.close(memory)
        return WorldJoined()

    def configure(self, order: Configure) -> Configured:
        self.spec = order.spec
        self.epoch, self.step, self.script = order.spec.epoch, order.spec.start, json.loads(order.spec.text.path)
        fingerprint = self.script.get("fingerprints", {}).get(str(self.rank))
        active = str(self.rank) not in self.script.get("idle", ())
        self.fault(-1)
        return Configured(self.epoch, active, fingerprint=fingerprint)

    def lease(self, lease: Lease) -> None:
        assert lease.epoch == self.epoch
        while self.step < lease.until:
            self.run_step()

    def run_step(self) -> None:
        start = time.time()
        time.sleep(self.script.get("step_s", 0.0))
        self.fault(self.step)
        done = self.step + 1
        if self.spec.saves_at(done):
            told = {"rank": str(self.rank), "file": f"{self.rank}@{done}", "size_bytes": 0, "checksum": ""}
            piece = StoredPiece(**told, tensors={}) if self.rank.index == 0 else None
            self.agent.send_word(Saved(done, piece))
        place = {"rank": self.rank, "pipeline": 0, "stage": 0, "tp_rank": self.rank.index}
        times = {"start": start, "end": time.time(), **NOTHING}
        self.agent.send_word(StepReport(self.step, self.epoch, **place, **times, overrun=False))
        self.step = done

    def fault(self, step: int) -> None:
        at, what = self.script.get("faults", {}).get(str(self.rank), (None, ""))
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

"""Processes that stand ready, joined over gloo, and run one function after another."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from backends.strict import StrictCommunicator
from backends.watch import Watch
from hetero.layers.group import TensorGroup
from tests.patience import WAIT_S

SIZE = 4


class StandingRanks:
    """Four processes; `run` calls a function in those that a tensor-parallel group of tp ranks needs."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed", "hetero.models.unit_module"])
        self._pipes, self._processes = [], []
        for rank in range(SIZE):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs, str(folder / "store")), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, tp: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """function(group, *arguments) in ranks 0..tp-1; their results in order."""
        for pipe in self._pipes[:tp]:
            pipe.send((tp, function, arguments))
        answers = []
        for rank, pipe in enumerate(self._pipes[:tp]):
            assert pipe.poll(WAIT_S), f"rank {rank} does not answer"
            answers.append(pipe.recv())
        for error, _ in answers:
            assert error is None, error
        return [result for _, result in answers]

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(WAIT_S)
            if process.is_alive():
                process.kill()


def _serve(rank: int, pipe: Connection, store: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=SIZE)
    made = {tp: StrictCommunicator("tp", rank, range(tp), torch.device("cpu"), Watch(), None, tp) for tp in (2, 4)}
    while True:
        try:
            tp, function, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send((None, function(TensorGroup(tp, rank, made.get(tp)), *arguments)))
        except Exception:
            pipe.send((traceback.format_exc(), None))

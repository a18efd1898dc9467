"""One suite for the communicators of every family: what they compute, and, for those that play a chip, the law.

Real chips run it where two of them are; the skip says so. Each rank is a process.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from backends.backend import Backend
from backends.chip import chip_names, load_chip
from backends.communicator import Communicator
from backends.cpu import CpuBackend
from backends.emulation import Emulated, EmulateOptions
from backends.errors import DeviceError, NoAnswer
from backends.registry import family_names, load_backend
from backends.strict import StrictCommunicator
from backends.watch import Watch
from tests.patience import WAIT_S

pytestmark = pytest.mark.slow
SIZE = 3


def _opened(family: str, kind: str, index: int) -> Backend:
    inner = load_backend(family)
    chip = next(chip for chip in map(load_chip, chip_names()) if chip.family == family)
    backend = {"real": inner, "unplayed": Unplayed}.get(kind, lambda: Emulated(inner, chip, EmulateOptions()))()
    backend.open(index)
    return backend


class Unplayed(CpuBackend):
    """What real chips talk over, with torch's own gloo in place of their library."""

    shares_group = False
    communicator = Backend.communicator


class Ranks:
    """Processes that stand ready."""

    def __init__(self, store: Path, family: str, kind: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed", "backends.strict", "backends.emulation"])
        self._pipes, self._processes = [], []
        for rank in range(SIZE):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs, str(store), family, kind), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, *functions: Callable[[Backend, int], Any]) -> list[Any]:
        """One function at each rank, or the same at all."""
        for rank, pipe in enumerate(self._pipes):
            pipe.send(functions[min(rank, len(functions) - 1)])
        found = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(WAIT_S), f"rank {rank} does not answer"
            found.append(pipe.recv())
        assert all(error is None for error, _ in found), found
        return [result for _, result in found]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _serve(rank: int, pipe: Connection, store: str, family: str, kind: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    backend = _opened(family, kind, rank)
    name = (
        backend.collective if backend.device_type == "cpu" else f"cpu:gloo,{backend.device_type}:{backend.collective}"
    )
    dist.init_process_group(name, init_method=f"file://{store}", rank=rank, world_size=SIZE)
    while True:
        function = pipe.recv()
        try:
            pipe.send((None, function(backend, rank)))
        except Exception:
            pipe.send((traceback.format_exc(), None))


KINDS = [("cpu", "unplayed"), *((family, kind) for family in family_names() for kind in ("real", "emulated"))]


@pytest.fixture(scope="module", params=KINDS, ids=" ".join)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    family, kind = request.param
    try:
        here = SIZE if kind != "real" or family == "cpu" else load_backend(family).count()
    except DeviceError as absent:
        pytest.skip(str(absent))
    if here < SIZE:
        pytest.skip(f"{here} {family} chips are here, {SIZE} are needed")
    standing = Ranks(tmp_path_factory.mktemp("ranks") / "store", family, kind)
    yield standing
    standing.close()


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Ranks]:
    """Of their own for each test: who has waited in vain is of no use any more."""
    standing = Ranks(tmp_path / "store", "cpu", "real")
    yield standing
    standing.close()


def _of(backend: Backend, rank: int, row: int) -> Communicator:
    return backend.communicator("test", rank, range(SIZE), Watch(), None, row)


def _collectives(backend: Backend, rank: int) -> list[Any]:
    one, device = _of(backend, rank, 1), backend.device
    one.meet()
    total, most = (torch.full((5,), float(rank + 1), device=device) for _ in range(2))
    one.all_reduce(total)
    one.all_reduce(most, largest=True)
    whole = torch.zeros(6, device=device)
    parts = list(whole.split([1, 2, 3]))
    parts[rank].fill_(rank + 1)
    one.all_gather(parts)
    sizes = [member * (rank + 1) for member in range(SIZE)]
    inward = torch.empty(rank * 6, device=device)
    outward = torch.cat([torch.full((size,), 10.0 * rank + member) for member, size in enumerate(sizes)]).to(device)
    one.all_to_all(inward, [rank * (member + 1) for member in range(SIZE)], outward, sizes).wait()
    return [tensor.tolist() for tensor in (total, most, whole, inward)]


def test_collectives(ranks: Ranks) -> None:
    for rank, (total, most, whole, inward) in enumerate(ranks.run(_collectives)):
        assert total == [6.0] * 5
        assert most == [3.0] * 5
        assert whole == [1.0, 2.0, 2.0, 3.0, 3.0, 3.0]
        assert inward == [10.0 * member + rank for member in range(SIZE) for _ in range(rank * (member + 1))]


def _started(backend: Backend, rank: int) -> list[Any]:
    """Four under way at once, waited for in their order when all have been issued."""
    one, device = _of(backend, rank, 3), backend.device
    one.meet()
    total, more = (torch.full((4,), scale * (rank + 1), device=device) for scale in (1.0, 10.0))
    mine, whole = torch.full((2, 2), float(rank), device=device), torch.empty(SIZE * 2, 2, device=device)
    rows = torch.arange(2.0 * SIZE, device=device) * (rank + 1)
    part = torch.empty(2, device=device)
    works = [one.start_all_reduce(total), one.start_all_gather(whole, mine)]
    works += [one.start_reduce_scatter(part, rows), one.start_all_reduce(more)]
    for work in works:
        work.wait()
        work.wait()
    return [tensor.tolist() for tensor in (total, more, whole[:, 0], part, rows)]


def test_collectives_under_way_at_once(ranks: Ranks) -> None:
    for rank, (total, more, whole, part, rows) in enumerate(ranks.run(_started)):
        assert total == [6.0] * 4
        assert more == [60.0] * 4
        assert whole == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
        assert part == [6.0 * (2 * rank), 6.0 * (2 * rank + 1)]
        assert rows == [float(n * (rank + 1)) for n in range(2 * SIZE)], "what was given stays as it was"


def _messages(backend: Backend, rank: int) -> list[float]:
    """Rank 0 sends three to rank 2, which it takes in their order."""
    one = _of(backend, rank, 2)
    if rank == 0:
        one.greet(2, sends=True)
        for work in [one.send(torch.full((4,), float(n), device=backend.device), 2) for n in range(3)]:
            work.wait()
    if rank == 2:
        one.greet(0, sends=False)
        found = [torch.empty(4, device=backend.device) for _ in range(3)]
        for tensor in found:
            one.receive(tensor, 0).wait()
        return [float(tensor[0]) for tensor in found]
    return []


def test_messages_come_in_the_order_of_sending(ranks: Ranks) -> None:
    assert ranks.run(_messages)[2] == [0.0, 1.0, 2.0]


# The law, where it is played.


def _impatient(backend: Backend, rank: int) -> StrictCommunicator:
    return StrictCommunicator("test", rank, range(SIZE), backend.device, Watch(), None, 1, timedelta(seconds=1))


def _posts_ahead(backend: Backend, rank: int) -> str:
    try:
        _impatient(backend, rank).receive(torch.empty(1), 1)
    except NoAnswer as error:
        return str(error)
    return "did not block"


def _does_nothing(backend: Backend, rank: int) -> str:
    return ""


def test_first_contact_blocks_its_host_and_says_with_whom(impatient: Ranks) -> None:
    said = impatient.run(_posts_ahead, _does_nothing)[0]
    assert "test: chip 0 with chip 1: the other end did not come to the operation within 1 s" in said


def _crossed(backend: Backend, rank: int) -> str:
    """Two that send first and receive then."""
    if rank == 2:
        return ""
    one = _impatient(backend, rank)
    try:
        one.send(torch.ones(1), 1 - rank)
        one.receive(torch.empty(1), 1 - rank).wait()
    except (NoAnswer, RuntimeError) as error:  # NoAnswer, or gloo's own where the other has given up before
        return str(error)
    return "went through"


def test_without_tags_a_send_meets_a_send(impatient: Ranks) -> None:
    said = impatient.run(_crossed)[:2]
    assert any("did not come" in one for one in said)
    assert "went through" not in said


def _one_order(backend: Backend, rank: int) -> str:
    """A reduction at one member is a gathering at the others."""
    one = _impatient(backend, rank)
    one.meet()
    try:
        if rank == 0:
            one.all_reduce(torch.ones(1))
        else:
            one.all_gather(list(torch.ones(SIZE).split(1)))
    except (NoAnswer, RuntimeError) as error:
        return str(error)
    return "went through"


def test_members_that_issue_other_collectives_are_told(impatient: Ranks) -> None:
    said = impatient.run(_one_order)
    assert any("did not come" in one for one in said)
    assert "went through" not in said

"""Initial values that depend on a tensor's name, the seed and an element's place in the logical tensor: nothing else.

The state of an element's generator is counted by (row, column // 2) from a hash of seed and name, so each rank makes
its own slice alone, where the slice lies: on the chip if it makes the host's bits, which it proves first on a sample,
else on the host.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
import xxhash

from bridge.layout.layout import Region
from hetero.layers.normals import STEP, Normals, wrapped

Rows = tuple[torch.Tensor, torch.Tensor]
"""Rows of a tensor and the states that they begin at."""

_HOST_PAIRS, CHIP_PAIRS = 1 << 15, 1 << 20
"""Made at a time: what lies in a core's own cache, and enough to keep a chip busy."""
_CARRIED = 1 << 24
"""Elements that are made on the host before they go to a chip."""
_MOST_THREADS = 8
"""A host's ranks share its cores, and more would wait for the interpreter."""
_SAMPLE = (97, 2111)


def fill_normal(target: torch.Tensor, name: str, seed: int, shape: Sequence[int], region: Region, std: float) -> None:
    """Write the part `region` of the logical tensor `name` of `shape` into `target`, which is contiguous: normal values
    in float32, rounded to the target's type. Takes some 40 MB beside it on a chip, a few on the host, or a row."""
    if target.numel() == 0:
        return
    rows, columns = _row_numbers(shape[:-1], region[:-1]), region[-1]
    table = target.detach().view(len(rows), -1)
    seed_of_name = xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode())
    states = rows * wrapped(-(-shape[-1] // 2) * STEP) + wrapped(seed_of_name + STEP)
    if not host_makes(target.device, target.dtype):
        _make(table, states, columns, std)
        return
    for part, numbers in _parts(table, states, _CARRIED // table.shape[1]):
        made = torch.empty(part.shape, dtype=part.dtype)
        _make(made, numbers, columns, std)
        part.copy_(made)


@lru_cache
def host_makes(device: torch.device, dtype: torch.dtype) -> str:
    """Why the host must make the device's values: it lacks what normals are made of, or rounds otherwise, by a sample.
    Empty where it makes its own."""
    if device.type == "cpu":
        return ""
    states, columns = torch.arange(_SAMPLE[0]) * wrapped(_SAMPLE[1] * STEP), (1, _SAMPLE[1])
    host = torch.empty((_SAMPLE[0], _SAMPLE[1] - 1), dtype=dtype)
    _make(host, states, columns, 1.0)
    try:
        chip = torch.empty_like(host, device=device)
        _make(chip, states, columns, 1.0)
        return "" if torch.equal(chip.cpu(), host) else "its bits are not the host's"
    except RuntimeError as error:  # an operator that it lacks
        return str(error).partition("\n")[0] or type(error).__name__


def _make(table: torch.Tensor, states: torch.Tensor, columns: tuple[int, int], std: float) -> None:
    """Fill rows, by the states that they begin at, on the device where they lie."""
    (start, stop), device = columns, table.device
    steps = (torch.arange(start // 2, -(-stop // 2)) * STEP).to(device)
    at_once = max(1, (_HOST_PAIRS if device.type == "cpu" else CHIP_PAIRS) // len(steps))
    parts = _parts(table, states.to(device), at_once)
    odd = start % 2

    def work(mine: Sequence[Rows]) -> None:
        normals = Normals(min(at_once, len(table)) * len(steps), device)
        for part, numbers in mine:
            first, second = normals.make(numbers, steps, std)
            part[:, odd::2].copy_(first[:, odd:])
            part[:, 1 - odd :: 2].copy_(second[:, : len(steps) - stop % 2])

    _share_out(parts, work, len(os.sched_getaffinity(0)) if device.type == "cpu" else 1)


def _parts(table: torch.Tensor, states: torch.Tensor, rows: int) -> list[Rows]:
    rows = max(1, rows)
    return list(zip(table.split(rows), states.split(rows), strict=True))


def _share_out(parts: Sequence[Rows], work: Callable[[Sequence[Rows]], None], cores: int) -> None:
    """Among threads, who leave the interpreter to each other while torch works."""
    threads = min(len(parts), cores, _MOST_THREADS)
    if threads == 1:
        work(parts)
        return
    with ThreadPoolExecutor(threads, "initial values") as pool:
        list(pool.map(work, [parts[thread::threads] for thread in range(threads)]))


def _row_numbers(shape: Sequence[int], region: Region) -> torch.Tensor:
    """Numbers, in the whole tensor, of the rows that a region of the leading dimensions touches."""
    rows = torch.zeros(1, dtype=torch.int64)
    for size, (start, stop) in zip(shape, region, strict=True):
        rows = (rows[:, None] * size + torch.arange(start, stop)).flatten()
    return rows

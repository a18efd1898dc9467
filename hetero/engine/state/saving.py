"""A rank's part of the job's state: into a checkpoint, beside the steps that follow, and back, under any plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from backends.backend import Backend
from bridge.rank import RankId
from hetero.checkpoint.hf_layout import HfLayout
from hetero.checkpoint.hf_weights import write_owned
from hetero.checkpoint.pieces import CheckpointReader, write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.state.routes import PARAMETER, Key
from hetero.engine.state.state import Places, State, Tensors
from hetero.words.orders import Saved

Rest = Callable[[], object]
"""What is left to do of a copy that has begun."""


class Saver:
    """Copies what a rank owns to host memory and writes it from there, both beside its steps: one save at a time.

    `tell` hears of each piece that is whole and on the disk, `fail` of what went wrong; a thread calls them. The memory
    is kept for the next save.
    """

    def __init__(
        self, rank: RankId, backend: Backend, tell: Callable[[Saved], None], fail: Callable[[Exception], None]
    ) -> None:
        self._rank, self._backend, self._tell, self._fail = rank, backend, tell, fail
        self._thread = ThreadPoolExecutor(1, "saver", initializer=backend.attend)
        self._kept: dict[Key, torch.Tensor] = {}
        self._copied: Future[None] | None = None
        self._written: Future[None] | None = None

    def save(self, store: CheckpointStore, state: State, byte_s: float = 0.0, layout: HfLayout | None = None) -> None:
        """Begins to save the state as it is, once the save before is over; nothing may change it until `copied`. With
        its values as the weights of a model's directory too, if there is a `layout`.

        `byte_s` is what an emulated chip takes to give a byte to its host. Raises what the save before failed of."""
        self.wait()
        owned = state.owned()
        rests = self._begin_copies(owned)
        over_at = time.perf_counter() + byte_s * sum(host.nbytes for host in self._kept.values())
        self._copied = copied = self._thread.submit(_finish_copies, rests, over_at)
        copies = {name: {kind: self._kept[Key(name, kind)] for kind in kinds} for name, kinds in owned.items()}
        told = store, state.step, copies, dict(state.places), layout
        self._written = self._thread.submit(self._write, copied, *told)

    @property
    def is_copying(self) -> bool:
        """Whether nobody has waited yet until the state may change."""
        return self._copied is not None

    def copied(self) -> None:
        """Waits until the state may change again."""
        if self._copied is not None:
            self._copied.result()
            self._copied = None

    def wait(self) -> None:
        """Until the save that is under way is over. Raises what it failed of."""
        if self._written is not None:
            self._written.result()
            self._written = None

    def _begin_copies(self, owned: dict[str, Tensors]) -> list[Rest]:
        tensors = {Key(name, kind): value.detach() for name, kinds in owned.items() for kind, value in kinds.items()}
        self._kept = {key: self._room(key, tensor) for key, tensor in tensors.items()}
        return [self._begin_copy(tensor, self._kept[key]) for key, tensor in tensors.items()]

    def _room(self, key: Key, tensor: torch.Tensor) -> torch.Tensor:
        kept = self._kept.get(key)
        if kept is not None and (kept.shape, kept.dtype) == (tensor.shape, tensor.dtype):
            return kept
        return self._backend.beside(tensor, tensor.dtype)

    def _begin_copy(self, tensor: torch.Tensor, host: torch.Tensor) -> Rest:
        """Of what lies in host memory already the thread copies all."""
        if tensor.device.type == "cpu":
            return partial(host.copy_, tensor)
        return self._backend.copy_out(tensor, host).wait

    def _write(
        self,
        copied: Future[None],
        store: CheckpointStore,
        step: int,
        copies: dict[str, Tensors],
        places: Places,
        layout: HfLayout | None,
    ) -> None:
        """What `copied` failed of, the write fails of: memory has then what was there before."""
        try:
            copied.result()
            piece = None
            if copies:
                piece = write_piece(store.piece_path(step, self._rank), self._rank, copies, places)
                if layout is not None and isinstance(folder := store.folder(step), Path):
                    write_owned(layout, folder, copies, places)
            self._tell(Saved(step, piece))
        except Exception as error:
            self._fail(error)
            raise


def _finish_copies(rests: Sequence[Rest], over_at: float) -> None:
    for rest in rests:
        rest()
    time.sleep(max(0.0, over_at - time.perf_counter()))


def load(reader: CheckpointReader, state: State) -> None:
    """Fills every shard held here from the checkpoint, and the masters and moments of those owned here."""
    state.updates = reader.manifest.run.updates
    for name, value in state.values.items():
        layout, position = state.places[name]
        region = layout.region(position)
        value.copy_(reader.read(name, PARAMETER, region))
        if name in state.masters:
            state.restore(name, {kind: reader.read(name, kind, region) for kind in reader.kinds(name)})

"""`Backend`: how to drive one kind of chip from the process that serves it. Imports torch only when it must."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from backends.communicator import Communicator
    from backends.operators import Operators
    from backends.watch import Watch


@dataclass(frozen=True)
class Capabilities:
    """What a family can do beyond what all can.

    `bfloat16`: its chips compute in bfloat16 (single chips may not: `ChipSpec.peak_flops` decides).
    `float64_reduce`: its collectives reduce float64. `compile`: `torch.compile` has an effect.
    `pinned_async`: copies from and to pinned host memory may run beside compute.
    `fused_adamw`: torch's fused AdamW has a kernel for its device.
    """

    bfloat16: bool
    float64_reduce: bool
    compile: bool
    pinned_async: bool
    fused_adamw: bool = False


@dataclass(frozen=True)
class MemoryUse:
    """The most memory that this process's tensors have taken on its chip, what the chip offers the process, and what
    its driver says the process holds by now: tensors, what the allocator keeps, communicators. None: nobody counts."""

    peak_bytes: int
    limit_bytes: int
    held_bytes: int | None = None


class Copy:
    """A copy between a chip and host memory. This one is over; an asynchronous one overrides both methods.

    Any one thread may ask and wait, also one that `Backend.attend` has readied.
    """

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        """Return when the bytes have arrived, so that the host memory may be read or filled again."""


class Stopwatch(ABC):
    """Times one action of a stage; runs from its making to `stop()`."""

    overrun: bool = False
    """Whether the action took longer than the chip that is emulated would have; valid after `stop()`."""

    def lap(self, part: float) -> None:  # noqa: B027  # real chips take their time
        """So much of the action is done. An emulated chip waits until that part of its time has passed."""

    @abstractmethod
    def paused(self, part: float) -> AbstractContextManager[None]:
        """What the chip waits for inside, when it has done so much of the action, is no part of it. The rank may come
        there before its chip; an emulated chip, too, waits only from then on."""

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def seconds(self) -> float:
        """The chip's time for the action; valid after `stop()`, may wait for the chip."""


class Backend(ABC):
    """One chip of one family, driven by this process. Nothing touches the chip before `open`.

    `collective` is the name of the process-group backend that the chips of a pool share, `visible_devices` the
    environment variables that limit which chips a process sees.
    """

    family: str
    device_type: str
    collective: str
    visible_devices: tuple[str, ...]
    capabilities: Capabilities
    shares_group: bool = False
    """Whether all communicators of a pool may lie on the process group of its world."""

    @classmethod
    @abstractmethod
    def count(cls) -> int:
        """How many chips this process sees; `DeviceError` says why it cannot use the family."""

    @classmethod
    def device_names(cls) -> tuple[str, ...]:
        """What the chips that this process sees call themselves, in order; empty where they have no names."""
        return ()

    @abstractmethod
    def open(self, index: int) -> None:
        """Select the chip for this process, by its place among the visible ones; `DeviceError` if it cannot."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where tensors of this chip live; valid after `open`."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the chip has done all that it was given."""

    @abstractmethod
    def memory(self) -> MemoryUse: ...

    @classmethod
    def examine(cls) -> str:
        """What only an opened chip tells of its family, for `hetero doctor`, in a process that does nothing else."""
        return ""

    def note(self) -> str:
        """What a person should know of the opened chip, which is no error."""
        return ""

    def usable_bytes(self) -> int | None:
        """What the opened chip had free for this process; None where it is no chip's own memory."""
        return None

    @abstractmethod
    def start(self, expected_s: float | None = None, after: Stopwatch | None = None) -> Stopwatch:
        """Time an action. An emulated chip paces it to `expected_s`, which real ones ignore; None: do not pace.

        `after` is the action before it, if the rank did nothing since but see to messages. A real chip is given work
        ahead, so that it never waits for its rank: an emulated one goes on from where it was through, too, or from the
        end of the last wait."""

    @abstractmethod
    def copy_out(self, tensor: Tensor, host: Tensor) -> Copy:
        """Copy the chip's `tensor`, as the work given so far leaves it, to `host` of equal shape and type.

        Work given from here on must not change `tensor` before the copy is over, nor may anybody touch `host`; memory
        that is let go of is kept until then. Copies out are over in the order of these calls.
        """

    @abstractmethod
    def copy_in(self, host: Tensor, tensor: Tensor, fresh: bool = False) -> Copy:
        """Copy `host` to the chip's `tensor`, after the work given so far; work from here on sees the new content.

        `fresh` says that `tensor` comes from `landing` and no work knows it yet: then the copy runs beside that given
        so far. `host` must not be changed before the copy is over.
        """

    def beside(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Host memory of a tensor's shape, of any content; pinned where its copies may run beside compute."""
        import torch

        return torch.empty(tensor.shape, dtype=dtype)

    @abstractmethod
    def landing(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A new tensor on the chip, of any content, to copy into beside the work given so far."""

    @abstractmethod
    def mark(self) -> Copy:
        """Something that is over when the chip has done the work given so far, copies apart."""

    def overflowed(self) -> bool:
        """Whether a chip whose results hide it (the largest number stands for infinity) has overflowed since this was
        asked last; waits for the chip. False where results show it."""
        return False

    def communicator(
        self, name: str, me: int, members: Sequence[int], watch: Watch, group: ProcessGroup | None, row: int
    ) -> Communicator:
        """Of these chips of the pool, over a process group of theirs (None: the world's). `row` is its number, the same
        at all members and of no other communicator at this time."""
        from backends.communicator import VendorCommunicator

        return VendorCommunicator(name, me, members, self.device, watch, group)

    def attend(self) -> None:  # noqa: B027  # most need nothing
        """Ready the calling thread to wait for this chip's copies."""

    @property
    def operators(self) -> Operators:
        """The family's implementation of the model's operators: plain torch unless it has better."""
        from backends.operators import Operators

        return Operators()

    def pin(self, buffer: memoryview) -> bool:
        """Make writable host memory directly readable for the chip; the caller keeps it mapped until `unpin`.

        False where the chip cannot: copies then go through the backend's own staging, nothing else changes.
        """
        return False

    def unpin(self, buffer: memoryview) -> None:  # noqa: B027
        """Undo `pin`, before the memory is unmapped; does nothing if it was not pinned."""

    def claim(self, name: str, bytes_: int) -> None:  # noqa: B027
        """Account memory that `name` will use on the chip, in place of its earlier claim.

        Real chips keep their own accounts. An emulated one raises `OutOfMemory` when its memory cannot hold it.
        """

    def release(self, name: str) -> None:  # noqa: B027
        """Forget the claim of `name`, if there is one."""


def check_alike(source: Tensor, target: Tensor) -> None:
    """A copy never broadcasts or converts: `ValueError` unless both have the same shape and type."""
    if source.shape != target.shape or source.dtype != target.dtype:
        raise ValueError(
            f"cannot copy {tuple(source.shape)} {source.dtype} to {tuple(target.shape)} {target.dtype}: "
            "shape and type must be equal"
        )

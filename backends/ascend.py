"""Huawei Ascend NPUs: `torch.npu`, which the plug-in torch_npu adds to torch, and HCCL."""

from __future__ import annotations

import os
import time
from importlib import import_module
from typing import Any

import torch

from backends.accelerator import AcceleratorBackend
from backends.ascend_operators import OFFERS
from backends.backend import Capabilities
from backends.errors import DeviceError
from backends.registry import visible_device_variables
from backends.versions import ascend_pair_fault, ascend_pair_remedy

_PINNED = 0x10000000  # ACL_HOST_REG_PINNED
_SHORTEST_S, _LONGEST_S = 20e-6, 500e-6
"""Between two looks at an event: a wait that is long is seen late by little of it."""

_PAIRS = "P2P_HCCL_BUFFSIZE"
"""In MB. With it, messages of two chips have a communicator of their own, which is the default from torch_npu 7.1.0 on;
before, all of a group's messages went one after another, and a chip's sends waited behind its receives."""


class AscendBackend(AcceleratorBackend):
    """One NPU, as torch counts them: each die of a two-die package is a device of its own.

    Slots are pinned in place where torch_npu can register memory, and where CANN and driver are new enough that it sees
    what is registered; else copies use its pinned staging. HCCL reduces no float64.
    """

    family = "ascend"
    device_type = "npu"
    collective = "hccl"
    visible_devices = visible_device_variables(family)
    capabilities = Capabilities(bfloat16=True, float64_reduce=False, compile=True, pinned_async=True, fused_adamw=True)
    offers = OFFERS

    @classmethod
    def load_module(cls) -> Any:
        """Imported here and not by torch's autoloading: without CANN that would make `import torch` fail."""
        if fault := ascend_pair_fault():
            raise DeviceError("family", cls.family, fault, f"{ascend_pair_remedy()}.")
        os.environ.setdefault(_PAIRS, "20")
        try:
            import_module("torch_npu")
        except Exception as error:  # a missing library, another accelerator in the process, a broken CANN: all kinds
            raise DeviceError(
                "family",
                cls.family,
                f"torch_npu cannot be imported: {error}",
                "Install hetero[ascend] and CANN, and source CANN's set_env.sh before starting.",
            ) from error
        module = torch.get_device_module("npu")
        if not module.is_available():
            raise DeviceError(
                "family", cls.family, "torch_npu sees no NPU", "Check npu-smi info and ASCEND_RT_VISIBLE_DEVICES."
            )
        return module

    def open(self, index: int) -> None:
        super().open(index)
        # Vendor-internal tensor formats would put other bytes on the wire than the shape says.
        self._module.config.allow_internal_format = False
        self._saturates = not self._module.utils.is_support_inf_nan()

    def overflowed(self) -> bool:
        """By the chip's flag. 910A knows no infinities, and later chips do not where INF_NAN_MODE_ENABLE is 0."""
        return self._saturates and bool(self._module.utils.npu_check_overflow(0.0))

    def _register(self, address: int, size: int) -> bool:
        register = getattr(self._runtime(), "npuHostRegister", None)
        return register is not None and int(register(address, size, _PINNED)) == 0

    def _unregister(self, address: int) -> None:
        self._runtime().npuHostUnregister(address)

    def _runtime(self) -> Any:
        """CANN's calls as torch_npu hands them on; None in wheels before 2.7.1."""
        return self._module.npurt() if hasattr(self._module, "npurt") else None

    def _event(self, stream: Any) -> SleptEvent:
        return SleptEvent(super()._event(stream))


class SleptEvent:
    """An event whose waiter sleeps between looks: torch_npu's own ignores that one asks for such, and spins."""

    def __init__(self, event: Any) -> None:
        self.query = event.query

    def synchronize(self) -> None:
        pause_s = _SHORTEST_S
        while not self.query():
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_S)

"""Kunlunxin XPUs. Their plug-in torch_xmlir takes the place of CUDA in torch, so they are a flavour of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from backends.backend import Capabilities
from backends.cuda import CudaBackend
from backends.errors import DeviceError
from backends.pinned import pinned_fault
from backends.probe import kunlun_hook
from backends.registry import visible_device_variables


class KunlunBackend(CudaBackend):
    """One XPU behind the names of CUDA: device "cuda", process groups "nccl" (BKCL inside).

    Copies are asynchronous where the opened chip proves that they are true, else plain and blocking: one of the
    vendor's runtimes has no pinned memory, and leaves stale cache lines on the chip. `torch.compile` is accepted and
    ignored by the plug-in.
    """

    family = "kunlun"
    visible_devices = visible_device_variables(family)
    capabilities = Capabilities(bfloat16=True, float64_reduce=False, compile=False, pinned_async=False)
    offers = ()
    """What CUDA's stack brings beyond plain torch is not known to work behind the plug-in."""

    @classmethod
    def load_module(cls) -> Any:
        if not kunlun_hook():
            raise DeviceError(
                "family",
                cls.family,
                "the plug-in torch_xmlir is not active in this Python, so torch.cuda is not Kunlun's",
                "Install the vendor's xpytorch, and unset DISABLE_XPYTORCH.",
            )
        if not torch.cuda.is_available():
            raise DeviceError("family", cls.family, "torch_xmlir sees no XPU", "Check xpu-smi and XPU_VISIBLE_DEVICES.")
        return torch.cuda

    @classmethod
    def examine(cls) -> str:
        chip = cls()
        chip.open(0)
        return f"{chip.note() or 'copies run beside compute'}; {chip.operators}"

    def open(self, index: int) -> None:
        super().open(index)
        self.capabilities = replace(self.capabilities, pinned_async=True)
        self._fault = pinned_fault(self)
        if self._fault:
            self.capabilities = replace(self.capabilities, pinned_async=False)

    def note(self) -> str:
        return f"copies are blocking: {self._fault}" if self._fault else ""

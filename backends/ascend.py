"""Huawei Ascend NPUs: `torch.npu`, which the plug-in torch_npu adds to torch, and HCCL."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import torch

from backends.accelerator import AcceleratorBackend
from backends.backend import Capabilities
from backends.errors import DeviceError
from backends.registry import visible_device_variables

_PAIRS = "P2P_HCCL_BUFFSIZE"
"""In MB. With it, messages of two chips have a communicator of their own, which is the default from torch_npu 7.1.0 on;
before, all of a group's messages went one after another, and a chip's sends waited behind its receives."""


class AscendBackend(AcceleratorBackend):
    """One NPU, as torch counts them: each die of a two-die package is a device of its own.

    Slots cannot be pinned in place, so copies use torch's pinned staging. HCCL reduces no float64.
    """

    family = "ascend"
    device_type = "npu"
    collective = "hccl"
    visible_devices = visible_device_variables(family)
    capabilities = Capabilities(bfloat16=True, float64_reduce=False, compile=True, pinned_async=True)

    @classmethod
    def load_module(cls) -> Any:
        """Imported here and not by torch's autoloading: without CANN that would make `import torch` fail."""
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

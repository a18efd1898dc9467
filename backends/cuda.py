"""NVIDIA GPUs: `torch.cuda` and NCCL."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from backends.accelerator import AcceleratorBackend
from backends.backend import Capabilities
from backends.compiled import compiled
from backends.errors import DeviceError
from backends.offers import Offer, Operator
from backends.operators import rotary, swiglu
from backends.probe import kunlun_hook
from backends.registry import visible_device_variables

_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every context of the process


def _fused_rms_norm() -> Operator:
    if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::_fused_rms_norm", "CUDA"):
        raise RuntimeError(f"torch {torch.__version__} has none")

    def rms_norm(x_BTD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        return functional.rms_norm(x_BTD, weight_D.shape, weight_D, eps)

    return rms_norm


def _add_product() -> Operator:
    """One product, which reads narrow ones and is added up as wide as it is computed."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::addmm.dtype_out", "CUDA"):
        raise RuntimeError(f"torch {torch.__version__} has none")
    add_wide: Any = torch.ops.aten.addmm.dtype_out

    def add_product(total_ED: Tensor, gradient_NE: Tensor, x_ND: Tensor) -> None:
        if total_ED.dtype == x_ND.dtype:
            total_ED.addmm_(gradient_NE.t(), x_ND)
        else:
            add_wide(total_ED, gradient_NE.t(), x_ND, total_ED.dtype, out=total_ED)

    return add_product


class CudaBackend(AcceleratorBackend):
    """One NVIDIA GPU. Shared memory is pinned in place, so slots are copied from and to without staging."""

    family = "cuda"
    device_type = "cuda"
    collective = "nccl"
    visible_devices = visible_device_variables(family)
    capabilities = Capabilities(bfloat16=True, float64_reduce=True, compile=True, pinned_async=True, fused_adamw=True)
    offers: ClassVar[tuple[Offer, ...]] = (
        Offer("rms_norm", "torch's fused kernel", _fused_rms_norm),
        Offer("rotary", "torch.compile", compiled(rotary)),
        Offer("swiglu", "torch.compile", compiled(swiglu)),
        Offer("add_product", "a product into float32", _add_product),
    )
    """Beside torch's own attention, whose plain form picks a fused kernel by itself."""

    @classmethod
    def load_module(cls) -> Any:
        if kunlun_hook():
            raise DeviceError(
                "family",
                cls.family,
                "torch.cuda here drives Kunlun chips",
                "Use the family kunlun, or set DISABLE_XPYTORCH=1.",
            )
        if torch.version.cuda is None:
            raise DeviceError(
                "family", cls.family, f"torch {torch.__version__} lacks CUDA", "Install a CUDA build of torch."
            )
        if not torch.cuda.is_available():
            raise DeviceError(
                "family", cls.family, "torch sees no CUDA device", "Check nvidia-smi and CUDA_VISIBLE_DEVICES."
            )
        return torch.cuda

    def _register(self, address: int, size: int) -> bool:
        if int(_runtime().cudaHostRegister(address, size, _PORTABLE)) == 0:
            return True
        self._drop_last_error()
        return False

    def _unregister(self, address: int) -> None:
        _runtime().cudaHostUnregister(address)

    def _drop_last_error(self) -> None:
        """The runtime keeps a refusal as its last error, and torch would blame it on the next kernel."""
        with suppress(RuntimeError):
            torch.zeros(1, device=self.device)


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]

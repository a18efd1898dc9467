"""The CPU's kernels in place of the chip's: the real torch_npu asks for an operator, and the CPU computes it in the
host memory that the stand-in calls a chip.

Copies stay torch_npu's own, and so does all that makes, views, frees or pins memory. `asked` counts what was asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_map

from tests.stand_in.ascend import fused

asked: Counter[str] = Counter()

KEY = "PrivateUse1"
KEYS = (KEY, f"Autograd{KEY}")
OWN = (
    "_conj", "_copy_from", "_has_compatible_shallow_copy_type", "_local_scalar_dense", "_pin_memory", "_reshape_alias",
    "_to_copy", "alias", "as_strided", "contiguous", "copy_", "empty", "expand", "is_pinned", "is_set_to", "new_empty",
    "record_stream", "reshape", "resize_", "set_", "to", "unfold", "view",
)  # fmt: skip
"""Beginnings of the names of what torch_npu does itself."""


def install() -> list[torch.library.Library]:
    """Registers them; they last as long as what is returned."""
    library, vendors = (torch.library.Library(space, "IMPL") for space in ("aten", "npu"))
    for key in KEYS:
        for operator in _registered(key):
            if _computes(operator) and key == KEY:
                library.impl(_short(operator), on_cpu(_short(operator), operator), key, allow_override=True)
            elif _is_composed(operator):
                library.impl(_short(operator), _composed(operator), key, allow_override=True)
    for key in KEYS:
        library.impl("scaled_dot_product_attention", _attention, key, allow_override=True)
    for name, compute in fused.KERNELS.items():
        vendors.impl(name, on_cpu(name, compute), KEY, allow_override=True)
    return [library, vendors]


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor of the CPU."""
    storage = tensor.untyped_storage()
    host = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), torch.device("cpu"), storage.nbytes())
    place = tensor.storage_offset(), tensor.size(), tensor.stride()
    return torch.empty(0, dtype=tensor.dtype).set_(host, *place)


def _registered(key: str) -> Iterator[torch._ops.OpOverload]:
    for name in torch._C._dispatch_get_registrations_for_dispatch_key(key):
        space, _, rest = name.partition("::")
        base, _, overload = rest.partition(".")
        packet = getattr(torch.ops.aten, base, None) if space == "aten" and not base.startswith(OWN) else None
        if packet is not None and (overload or "default") in packet.overloads():
            yield getattr(packet, overload or "default")


def _has_kernel(operator: torch._ops.OpOverload, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key)


def _computes(operator: torch._ops.OpOverload) -> bool:
    """The CPU has a kernel, and the result is no view of what was given."""
    views = any(result.alias_info is not None and not result.alias_info.is_write for result in operator._schema.returns)
    return not views and (_has_kernel(operator, "CPU") or _has_kernel(operator, "CompositeExplicitAutograd"))


def _is_composed(operator: torch._ops.OpOverload) -> bool:
    return _has_kernel(operator, "CompositeImplicitAutograd")


def _short(operator: torch._ops.OpOverload) -> str:
    return operator.name().removeprefix("aten::")


def _composed(operator: torch._ops.OpOverload) -> Callable[..., Any]:
    return lambda *args, **kwargs: operator.decompose(*args, **kwargs)


def on_cpu(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel for the chip's tensors, of a computation with the CPU's."""

    def run(*args: Any, **kwargs: Any) -> Any:
        asked[name] += 1
        torch.npu.current_stream().synchronize()  # what was given before may still be under way
        shared: list[tuple[torch.Tensor, torch.Tensor]] = []

        def inward(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.device.type == "npu":
                shared.append((value, on_host(value)))
                return shared[-1][1]
            if isinstance(value, torch.Generator):
                return None
            return torch.device("cpu") if isinstance(value, torch.device) and value.type == "npu" else value

        def outward(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            for given, host in shared:
                if value is host:
                    return given
            result = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="npu")
            on_host(result).copy_(value)
            return result

        return tree_map(outward, compute(*tree_map(inward, args), **tree_map(inward, kwargs)))

    return run


def _attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Written out, so that its gradient needs no kernel of its own."""
    asked["scaled_dot_product_attention"] += 1
    if enable_gqa:
        k, v = (one.repeat_interleave(q.size(-3) // one.size(-3), dim=-3) for one in (k, v))
    weights = (q @ k.transpose(-2, -1)) * (scale or q.size(-1) ** -0.5)
    if is_causal:
        later = torch.ones(weights.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        weights = weights.masked_fill(later, float("-inf"))
    if attn_mask is not None:
        weights = weights + attn_mask
    return weights.softmax(-1) @ v

"""Which environment variables matter to chips. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping

_BEGINNINGS = (
    "ACL", "ASCEND", "ATB", "BKCL", "CUDA", "DISABLE_XPYTORCH", "GLOO", "HCCL", "HETERO", "INF_NAN_MODE",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "MKL", "NCCL", "NPU", "NVIDIA", "OMP", "P2P_HCCL", "PYTHONPATH", "PYTORCH", "RAY",
    "TASK_QUEUE", "TORCH", "XCCL", "XMLIR", "XPU", "XPYTORCH",
)  # fmt: skip
"""Beginnings of the names of variables that torch, its plug-ins, their collectives or a run listen to."""


def listened_to(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of the variables, by name."""
    return {name: value for name, value in sorted(environment.items()) if name.startswith(_BEGINNINGS)}

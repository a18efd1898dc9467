"""Parts of a directory's tensors: only the bytes that are asked for are read."""

from __future__ import annotations

import torch
from safetensors import safe_open

from hetero.huggingface.folder import HfFolder


class HfReader:
    """A directory's tensors. Nothing stays mapped but what was given last, for as long as that is used."""

    def __init__(self, folder: HfFolder) -> None:
        self._folder = folder

    def get(self, name: str, slices: tuple[slice, ...] = ()) -> torch.Tensor:
        """That part of a tensor, on the CPU, in the type that it is stored in; all of it where `slices` is empty."""
        with safe_open(self._folder.path / self._folder.tensors[name].file, framework="pt") as file:
            part: torch.Tensor = file.get_slice(name)[slices] if slices else file.get_tensor(name)
            return part

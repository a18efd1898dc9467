"""A tiny directory of a model with random weights, as transformers writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hetero.models.hf_model import HfModel

SIZES: dict[str, Any] = {
    "vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def write_llama(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Of no special value: norms are no ones."""
    from transformers import LlamaConfig, LlamaForCausalLM  # which takes longer than all that is collected beside

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.to(dtype).save_pretrained(folder)
    return folder


def random_model(model: HfModel) -> Any:
    """transformers' own of it, in float32, no value of which is a special one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**model.values)
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(2.0).add_(0.1 * torch.randn(parameter.shape) * (parameter.dim() == 1))
    return theirs


def gradient(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros where there is none: of what is never trained."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


class HfTraining:
    """transformers' own model of a directory, by torch's SGD."""

    def __init__(self, folder: Path, lr: float) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)

    def step(self, tokens_BT: torch.Tensor, labels_BT: torch.Tensor) -> float:
        """The loss before it."""
        logits_BTV = self.model(tokens_BT).logits
        loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten())
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.item()

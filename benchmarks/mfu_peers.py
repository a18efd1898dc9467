"""What an MFU is held against: transformers' own Llama, compiled, and a plain loop over our modules.

Both are trained as somebody would who knows torch: float32 values under autocast, a fused AdamW, gradients clipped.
Each runs in a process of its own, one after another, so that each has the whole chip.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import PlainLoop, Turn
from hetero.engine.rank import open_backend
from hetero.models.dimensions import Dimensions
from hetero.words.spec import RunSpec


class Transformers(PlainLoop):
    """LlamaForCausalLM with torch's attention, compiled as a whole with its loss."""

    checkpointing = False

    def build(self, units: tuple[int, int]) -> nn.Module:
        from transformers import LlamaForCausalLM

        from tests.llama_config import llama_config

        dims = self.spec.model
        assert isinstance(dims, Dimensions)
        config = llama_config(
            dims,
            tie_word_embeddings=dims.tie_embeddings,
            max_position_embeddings=self.spec.text.seq_len,
            use_cache=False,
        )
        config._attn_implementation = "sdpa"
        with torch.device(self.backend.device):
            model = LlamaForCausalLM(config)
        if self.checkpointing:
            model.gradient_checkpointing_enable()
        return torch.compile(TheirLoss(model))  # type: ignore[return-value]


class CheckpointedTransformers(Transformers):
    """Where it fits no other way: every layer again in the backward."""

    checkpointing = True


class TheirLoss(nn.Module):
    """Tokens and labels in, the sum of the token losses out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
        logits_BTV = self.model(input_ids=tokens_BT).logits
        return functional.cross_entropy(logits_BTV.flatten(0, 1).float(), labels_BT.flatten(), reduction="sum")


def alone(kind: type[PlainLoop], spec: RunSpec, steps: int) -> list[Turn]:
    """The steps of one of them, in a process that is gone afterwards and has given back the chip; or what it raised."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(_train, kind, spec.model_dump_json(), steps).result()


def _train(kind: type[PlainLoop], spec_json: str, steps: int) -> list[Turn]:
    torch.set_num_threads(1)
    spec = RunSpec.model_validate_json(spec_json)
    stage = spec.plan.pipelines[0].stages[0]
    backend = open_backend(spec.pools[stage.pool], 0)
    trainer, turns = kind(spec, 0, stage.units[0], backend), []
    for number in range(steps):
        start = time.time()
        loss = trainer.step(number)
        backend.synchronize()
        turns.append(Turn(start, time.time(), loss))
    return turns

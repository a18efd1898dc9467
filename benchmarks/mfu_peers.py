"""What an MFU is held against: transformers' own Llama, compiled, and a plain loop over our modules.

Both are trained as somebody would who knows torch: float32 values under autocast, a fused AdamW, gradients clipped.
Each runs in a process of its own, one after another, so that each has the whole chip.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional

from backends.backend import Backend
from benchmarks.peers import PlainLoop, Turn
from hetero.engine.calibration import fill_with_noise
from hetero.engine.products import Products
from hetero.engine.rank import open_backend
from hetero.engine.step.backward import backward
from hetero.engine.step.stage import DTYPES
from hetero.layers.group import TensorGroup
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.models.unit_module import build_unit
from hetero.words.spec import RunSpec

Found = TypeVar("Found")
SPREAD = 0.02
"""Of weights, about as models begin with."""


class Transformers(PlainLoop):
    """LlamaForCausalLM with torch's attention, compiled as a whole with its loss."""

    checkpointing = False

    def build(self, units: tuple[int, int]) -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        dims = self.spec.dimensions
        config = LlamaConfig(
            vocab_size=dims.vocab,
            hidden_size=dims.hidden,
            intermediate_size=dims.ffn,
            num_hidden_layers=dims.layers,
            num_attention_heads=dims.heads,
            num_key_value_heads=dims.kv_heads,
            rms_norm_eps=dims.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": dims.rope_theta},
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


def alone(work: Callable[..., Found], *arguments: Any) -> Found:
    """What it returns or raises, in a process that is gone afterwards, and has given back the chip."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(work, *arguments).result()


def train(kind: type[PlainLoop], spec_json: str, steps: int) -> list[Turn]:
    spec, backend, units = _opened(spec_json)
    trainer, turns = kind(spec, 0, units, backend), []
    for number in range(steps):
        start = time.time()
        loss = trainer.step(number)
        backend.synchronize()
        turns.append(Turn(start, time.time(), loss))
    return turns


def product_seconds(spec_json: str, passes: int) -> dict[str, float]:
    """By kind of unit: what its matrix products and attention take of a micro-batch, forward and backward, in our own
    modules; the median after a first pass."""
    spec, backend, _ = _opened(spec_json)
    units = architecture(spec.dimensions).units
    kinds = {unit.kind: index for index, unit in reversed(list(enumerate(units)))}
    return {
        kind: median([one() for _ in range(passes + 1)][1:])
        for kind, index in kinds.items()
        for one in [partial(_products_once, spec, backend, _noisy_unit(spec, backend, index))]
    }


def _noisy_unit(spec: RunSpec, backend: Backend, index: int) -> nn.Module:
    dtype = DTYPES[spec.train.precision]
    unit = build_unit(spec.dimensions, index, TensorGroup(), backend.operators, dtype, backend.device, 0, fill=False)
    for parameter in unit.parameters():
        fill_with_noise(parameter.data, SPREAD)
    return unit


def _products_once(spec: RunSpec, backend: Backend, unit: nn.Module) -> float:
    shape, dtype = (spec.train.micro_batch, spec.text.seq_len), DTYPES[spec.train.precision]
    tokens = torch.randint(spec.dimensions.vocab, shape).to(backend.device)
    inputs = {
        name: fill_with_noise(torch.empty((*shape, size), dtype=dtype, device=backend.device)).requires_grad_()
        for name, size in architecture(spec.dimensions).boundary.items()
    }
    with Products(backend) as products:
        outputs = list(unit(inputs, Batch(tokens, tokens)).values())
        backward(outputs, [fill_with_noise(torch.empty_like(output)) for output in outputs])
    return products.seconds


def _opened(spec_json: str) -> tuple[RunSpec, Backend, tuple[int, int]]:
    torch.set_num_threads(1)
    spec = RunSpec.model_validate_json(spec_json)
    stage = spec.plan.pipelines[0].stages[0]
    return spec, open_backend(spec.pools[stage.pool], 0), stage.units[0]

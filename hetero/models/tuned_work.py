"""What a part costs with its adapters, and without the gradients of what is frozen. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from balancer.cost.workload import NO_BYTES, TpBytes
from hetero.layers.spec import TensorSpec
from hetero.models.adapter import Adapter, adapter_names
from hetero.models.parts.part import Part, PartWork


def tuned_work(
    part: Part, specs: Mapping[str, TensorSpec], adapters: Mapping[str, Adapter], seq_len: int, size: int
) -> PartWork:
    """`specs` and `adapters` are those of the part's unit, by their names within it; the specs are of tp 1."""
    own, work = [specs[spec.name] for spec in part.tensors(1)], part.work(seq_len, size)
    beside = [
        _trained(adapters[spec.name].work(spec, seq_len, size), [specs[name] for name in adapter_names(spec.name)])
        for spec in own
        if spec.name in adapters
    ]
    trained = _trained(work, own, work.weight_flops or min(work.forward_flops, part.product_flops(seq_len)))
    return _with_adapters(trained, beside, work) if beside else trained


def _trained(work: PartWork, specs: Sequence[TensorSpec], weights: float | None = None) -> PartWork:
    """Of products with these weights, whose gradients take `weights` flops if all train. Pairs of some are counted as
    those of all."""
    sizes = {spec.trains: 0 for spec in specs}
    for spec in specs:
        sizes[spec.trains] += math.prod(spec.layout.shape) if len(spec.layout.shape) > 1 else 0
    if not sizes.get(False):
        return work
    frozen = sizes[False] / sum(sizes.values())
    return replace(
        work,
        frozen_flops=frozen * (work.weight_flops if weights is None else weights),
        weight_flops=(1 - frozen) * work.weight_flops,
        pairs=work.pairs if frozen < 1 else NO_BYTES,
    )


def _with_adapters(trained: PartWork, beside: Sequence[PartWork], work: PartWork) -> PartWork:
    """Adapters run one after another. Their products read, and give, what those of the weights do: pairs are of the
    same tensors as the part's own `work` has, and of what lies between A and B."""
    pairs = work.pairs if any(one.weight_flops for one in beside) else trained.pairs
    return replace(
        trained,
        forward_flops=trained.forward_flops + sum(one.forward_flops for one in beside),
        kept=sum((one.kept for one in beside), trained.kept),
        forward_bytes=trained.forward_bytes + max(one.forward_bytes for one in beside),
        backward=trained.backward + TpBytes(whole=max(one.backward.whole for one in beside)),
        weight_flops=trained.weight_flops + sum(one.weight_flops for one in beside),
        frozen_flops=trained.frozen_flops + sum(one.frozen_flops for one in beside),
        pairs=sum((one.pairs for one in beside), pairs),
    )

"""Models of published runs, in our own words: what a unit of each computes and keeps."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from balancer.cost.workload import NO_BYTES, TpBytes, UnitWork, Workload
from benchmarks.published_runs import PRECISIONS, Inexpressible, Layout, Run
from hetero.models.architecture import Architecture
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture


@cache
def _architecture(model_type: str, config: tuple[tuple[str, object], ...]) -> Architecture:
    return architecture(HfModel.of({"model_type": model_type, **dict(config)}))


def workload_of(run: Run, layout: Layout) -> Workload:
    """Of our own description of its model: gated ones are Llamas, others have StarCoder's layers, whatever their
    activation."""
    gated = run.row.get("mlp") == "swiglu"
    config = {
        "num_hidden_layers": run.count("n_layers"),
        "hidden_size": run.count("hidden"),
        "num_attention_heads": run.count("heads"),
        "num_key_value_heads": run.count("kv_heads", run.count("heads")),
        "intermediate_size": run.count("ffn"),
        "vocab_size": run.count("vocab"),
        "tie_word_embeddings": run.is_on("tied_embed"),
    }
    kind = "llama" if gated else "starcoder2"
    found = _architecture(kind, tuple(config.items()))
    if found.legal_tp(layout.tp):
        raise Inexpressible(str(found.legal_tp(layout.tp)))
    seq = run.count("seq")
    work: Workload = found.workload(seq, layout.batch, PRECISIONS[run.row["precision"]])
    square = run.count("heads") * seq * seq if layout.whole_squares else 0
    units = [_with_square(unit, square, layout.kept_squares) if square else unit for unit in work.units]
    units = [_by_layer(unit) for unit in units]
    units[-1] = _in_one_piece(units[-1], 4 * seq * run.count("vocab"))
    if layout.early:
        units = [_in_the_open(unit, again=layout.recompute == "full") for unit in units]
    return replace(work, units=tuple(units), by_precision={}, sent_gradient_bytes=_sent_bytes(layout))


def _sent_bytes(layout: Layout) -> int:
    """Of each gradient, where 2 bytes of its parameter come back. A sum of all copies, without owners, comes back as
    wide as it was sent."""
    if not layout.wide_sums:
        return 2
    return 4 if layout.owners else 6


def _in_the_open(unit: UnitWork, again: bool) -> UnitWork:
    """A backward that hides no collectives beside gradients of weights, as if it made none, and took as long; those of
    a forward may come once more."""
    if not unit.weight_flops:
        return unit
    beside = unit.weight_flops

    def moved(one: UnitWork) -> UnitWork:
        return replace(one, weight_flops=0.0, frozen_flops=beside, remade_flops=one.remade_flops + beside)

    ways = {name: moved(made) for name, made in unit.recomputed.items()}
    return replace(moved(unit), recomputed=ways, tp_collectives=unit.tp_collectives * (1.5 if again else 1))


def _by_layer(unit: UnitWork) -> UnitWork:
    """Of a layer that is made again, one input is kept, not one of each half."""
    if unit.kind != "mlp":
        return unit
    again = replace(unit.under("full"), activation_bytes=0, whole_bytes=0)
    return replace(unit, recomputed={**unit.recomputed, "full": again})


def _in_one_piece(head: UnitWork, logits_bytes: int) -> UnitWork:
    """A head that keeps all logits in float32 and makes none again."""
    if not head.remade_flops:
        return head
    kept = head.activation_bytes + logits_bytes
    once = replace(head, remade_flops=0.0, remade=NO_BYTES, activation_bytes=kept, backward_bytes=logits_bytes // 2)
    return replace(once, recomputed={})


def _with_square(unit: UnitWork, square: int, kept: bool) -> UnitWork:
    """Attention that writes a whole square of scores, its softmax and what dropout left: 5 bytes of each score, which
    are made again where they are not kept. No mask saves a half."""
    flops = unit.forward_flops - unit.product_flops
    if not flops:
        return unit
    whole = replace(
        unit,
        forward_flops=unit.forward_flops + flops,
        activation_bytes=unit.activation_bytes + 5 * square,
        recomputed={},
    )
    again = replace(unit, forward_flops=whole.forward_flops, remade_flops=2 * flops, remade=TpBytes(5 * square))
    full = replace(unit.under("full"), forward_flops=whole.forward_flops)
    full = replace(full, remade_flops=full.remade_flops + flops, remade=full.remade + TpBytes(5 * square))
    return replace(whole if kept else again, recomputed={"full": full})

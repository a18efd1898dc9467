"""What an MFU counts, and what it might count. Torch-free.

The FLOPs of a model are those of its matrix products, 2 per multiply-add, three times those of its forward: 6 for each
weight and token, the head's among them, but none for looking up embeddings, and 4 for a weight that does not train. Of
attention's square they have the half
that the causal mask leaves; nothing that is computed again is counted again. Others count the whole square.
"""

from __future__ import annotations

from hetero.models.description import ModelDescription
from hetero.models.registry import architecture


def masked_flops(description: ModelDescription, seq_len: int) -> tuple[float, ...]:
    """Of each unit's forward of a sequence: what the causal mask takes away, and `forward_flops` does not count.

    Nothing but attention grows with the square of the length, and the mask leaves as much of that as it takes.
    """
    once, twice = (architecture(description).workload(length, 1, "float32").units for length in (seq_len, 2 * seq_len))
    return tuple((b.forward_flops - 2 * a.forward_flops) / 2 for a, b in zip(once, twice, strict=True))

"""Samples as the tensors that a micro-batch is made of."""

from __future__ import annotations

import numpy as np
import torch

from hetero.data.split import Samples
from hetero.data.stream import TokenStream
from hetero.models.batch import Batch


def micro_batch(stream: TokenStream, order: Samples, first_position: int, count: int) -> Batch:
    """Samples first_position .. first_position + count - 1 of the order, on the host."""
    windows = [stream.sequence(order.index(first_position + i)) for i in range(count)]
    tokens, labels = (torch.from_numpy(np.stack(part).astype(np.int64)) for part in zip(*windows, strict=True))
    return Batch(tokens, labels)

"""Samples as the tensors that a micro-batch is made of."""

from __future__ import annotations

import numpy as np
import torch

from hetero.data.split import Samples
from hetero.data.text import TextStream
from hetero.models.batch import Batch


def micro_batch(stream: TextStream, order: Samples, first_position: int, count: int) -> Batch:
    """Samples first_position .. first_position + count - 1 of the order, on the host."""
    samples = [stream.sequence(order.index(first_position + i)) for i in range(count)]
    columns = list(zip(*samples, strict=True))[: 4 if stream.packs else 2]
    return Batch(*(torch.from_numpy(np.stack(column).astype(np.int64)) for column in columns))

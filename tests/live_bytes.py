"""A count of the tensors that are there, for tests."""

from hetero.layers.live_bytes import LiveBytes

__all__ = ["LiveBytes"]

"""Tensors on their way from chip to chip."""

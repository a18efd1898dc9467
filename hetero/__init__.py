"""Hetero: one training run over chips of different vendors."""

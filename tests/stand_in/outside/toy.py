"""What a distribution from outside brings for chips that this repository has never heard of."""

from __future__ import annotations

from backends.registry import Family

FAMILY = Family("toy", "toy_backend:ToyBackend", ("TOY_DEVICES",), fused_adamw=True)

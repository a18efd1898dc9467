"""What a model is made from: the sizes of a job file or a preset, or a Hugging Face directory's config.json."""

from __future__ import annotations

from hetero.models.dimensions import Dimensions
from hetero.models.hf_model import HfModel

ModelDescription = Dimensions | HfModel
"""Both are frozen, hashable and torch-free, have `vocab`, and make another of themselves by `with_vocab`."""

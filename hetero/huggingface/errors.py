"""What can be wrong with a model's directory."""

from __future__ import annotations

from hetero.errors import ExplainedError

KEY = "model.hf"


class HfError(ExplainedError):
    """A directory of a model that is not there, or cannot be used as asked."""

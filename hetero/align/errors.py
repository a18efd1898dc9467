"""What cannot be compared."""

from __future__ import annotations

from hetero.errors import ExplainedError


class AlignError(ExplainedError):
    """Two models that are none of one kind, or a reference that is not there."""

"""What can be wrong with a checkpoint."""

from __future__ import annotations

from hetero.errors import ExplainedError


class CheckpointError(ExplainedError):
    """A checkpoint that was asked for does not exist, or does not hold what was asked of it."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint is not what was written: a file is missing or changed, or state is missing from it."""

    failure = True


class StorageFailed(CheckpointError):
    """A store did not do what was asked of it. What was saved before is whole."""

    failure = True


class StorageFull(CheckpointError):
    """The disk has no room for a checkpoint. What was saved before is whole."""

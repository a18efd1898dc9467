"""What sees every operator that runs inside."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Only where nothing that runs inside is compiled: torch then has no need to load its compiler, to keep it off what
    sees the operators, which would take a process longer than torch itself."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

"""What sees every operator that runs inside."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Nothing is compiled inside: torch has no need to load its compiler to keep it out of here, which would take a
    process longer than torch itself."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

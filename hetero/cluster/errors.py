"""What the driver is told when a run ends badly: one error that names pool, host, rank and cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.rank import RankId
from hetero.errors import ExplainedError

TOKEN = "set RAY_AUTH_MODE=token, and the cluster's token as RAY_AUTH_TOKEN or in ~/.ray/auth_token"
"""The remedy for a wrong token."""


class ClusterError(ExplainedError):
    """The cluster cannot be had as asked: Ray does not start, an interpreter is missing."""


class FingerprintMismatch(ExplainedError):
    """Hosts read different text (law 10). The session stays usable."""


class HostFailure(ExplainedError):
    """A host's agent, endpoint or fork server died. `also` lists what other processes reported in its wake."""

    failure = True

    def __init__(
        self,
        key: str,
        value: Any,
        rule: str,
        remedy: str,
        *,
        host: str,
        cause: str,
        rank: RankId | None = None,
        also: Sequence[str] = (),
    ) -> None:
        super().__init__(key, value, rule, remedy)
        self.pool, self.host, self.rank, self.cause, self.also = host.partition("@")[0], host, rank, cause, tuple(also)


class RayFailure(ExplainedError):
    """The Ray under the run is gone, or its control store does not answer any more."""

    failure = True


class RankFailure(HostFailure):
    """A rank died, hung, or failed by its own error, which `error` holds as the rank described it."""

    def __init__(self, *parts: Any, error: Mapping[str, Any] | None = None, **names: Any) -> None:
        super().__init__(*parts, **names)
        self.error = dict(error or {})

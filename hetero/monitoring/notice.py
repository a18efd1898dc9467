"""An event that somebody who watches the run wants written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Notice(NamedTuple):
    """`facts` are the keywords of `EventJournal.write`."""

    kind: str
    facts: Mapping[str, Any]

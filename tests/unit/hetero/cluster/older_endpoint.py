"""The fake endpoint, of another release: `python -m tests.unit.hetero.cluster.older_endpoint --fd N`."""

from __future__ import annotations

import importlib

from bridge.words import release

if __name__ == "__main__":
    release.RELEASE = "0.0.9"
    importlib.import_module("tests.unit.hetero.cluster.fake_endpoint").main()

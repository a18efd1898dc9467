"""Python reads this at its start, where this folder is on the path: `torch.cuda` then drives the host's CPU."""

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec

AFTER = {"torch": "install_torch", "backends.cuda": "install_backend"}


class _After(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if not (install := AFTER.pop(name, None)):
            return None
        spec = find_spec(name)
        load = spec.loader.exec_module

        def load_and_install(module):
            load(module)
            getattr(importlib.import_module("tests.stand_in.cuda.chips"), install)(module)

        spec.loader.exec_module = load_and_install
        return spec


sys.meta_path.insert(0, _After())

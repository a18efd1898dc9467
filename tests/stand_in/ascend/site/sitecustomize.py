"""Python reads this at its start, where this folder is on the path: once torch_npu is imported, the CPU's kernels take
the place of the chip's."""

import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec


class _AfterTorchNpu(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "torch_npu":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        load = spec.loader.exec_module

        def load_and_install(module):
            load(module)
            from tests.stand_in.ascend import kernels

            module.kernels_of_the_stand_in = kernels.install()

        spec.loader.exec_module = load_and_install
        return spec


sys.meta_path.insert(0, _AfterTorchNpu())

"""A machine with Ascend chips that are not there: the real torch_npu over the runtime of this folder.

Nothing of it reaches a process that is not given `environment`. It is compiled once, into the environment of the tests.
"""

from __future__ import annotations

import hashlib
import os
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
WHEEL = Path(sys.prefix) / "ascend"
"""Where `make install` puts torch_npu, apart from all else: without CANN it would fail `import torch`."""

SOURCES = ("runtime.cpp", "hccl.cpp", "copies.cpp", "unused.cpp")
HEADERS = WHEEL / "torch_npu" / "include"
INCLUDES = ("", "third_party/acl/inc", "third_party/hccl/inc")
LIBRARIES = (
    "libascendcl", "libhccl", "libacl_op_compiler", "libge_runner", "libgraph", "libacl_tdt_channel", "libnnopbase",
    "libopapi",
)  # fmt: skip
"""What the wheel links and opens; here one library has all these names."""


def why_not() -> str:
    """Why there is no such machine here; empty where there is."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return "torch_npu has no wheel for this platform"
    if _built_with_cuda():
        return "torch_npu goes with the CPU build of torch alone"
    if not HEADERS.is_dir():
        return f"torch_npu is not in {WHEEL}: make install"
    return "" if shutil.which("g++") else "g++ is missing, which compiles the stand-in for CANN"


def _built_with_cuda() -> bool:
    """As `torch.version.cuda` says it, without an import that takes longer than all else of who asks."""
    torch = find_spec("torch")
    assert torch is not None
    return runpy.run_path(f"{Path(str(torch.origin)).parent}/version.py")["cuda"] is not None


def environment(**variables: str) -> dict[str, str]:
    """What a process needs in its environment for chips of this machine."""
    path = [str(HERE / "site"), str(WHEEL), str(ROOT)]
    return {
        "LD_LIBRARY_PATH": str(library()),
        "PYTHONPATH": os.pathsep.join(path),
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "OMP_NUM_THREADS": "1",
        **variables,
    }


@cache
def library() -> Path:
    """The folder with the runtime, compiled if it is not there yet. Several processes may ask at once."""
    files = sorted([*HERE.glob("*.cpp"), *HERE.glob("*.h")])
    mark = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = WHEEL.parent / "ascend-runtime" / mark
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=folder.parent))
        _compile(building)
        try:
            building.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(building)
    return folder


def _compile(folder: Path) -> None:
    flags = ["-std=c++17", "-O1", "-fPIC", "-pthread", *(f"-I{HEADERS / name}" for name in INCLUDES)]
    objects = [folder / source.replace(".cpp", ".o") for source in SOURCES]
    commands = [
        ["g++", *flags, "-c", str(HERE / source), "-o", str(made)]
        for source, made in zip(SOURCES, objects, strict=True)
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_tell_errors, commands))
    first, *others = (folder / f"{name}.so" for name in LIBRARIES)
    _tell_errors(["g++", "-shared", "-pthread", "-o", str(first), *map(str, objects)])
    for other in others:
        other.symlink_to(first.name)
    for made in objects:
        made.unlink()


def _tell_errors(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

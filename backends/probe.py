"""Which chips this host has. Torch-free: torch is tried in a subprocess, since a broken plug-in can fail its import.

Signs on the host (device files, tools, packages) are cheap and say whom to ask; only torch says what can be used.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob
from importlib.util import find_spec

from backends.errors import BackendError
from backends.program import program
from backends.registry import find_family, load_backend, process_environment

# Kunlun first: it presents itself as CUDA.
ORDER = ("kunlun", "ascend", "cuda", "cpu")
_TIMEOUT_S = 120.0
_NUMBERED = "[0-9]*"


@dataclass(frozen=True)
class Detection:
    """One family on this host: `chips` that can be used, the `signs` of it, the `problem` if none can, the `note` that
    a chip gave when it was opened, and what the chips call themselves, each name once."""

    family: str
    chips: int
    signs: tuple[str, ...]
    problem: str = ""
    note: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Signs:
    modules: tuple[str, ...]
    paths: tuple[str, ...]
    tools: tuple[str, ...]

    def seen(self) -> tuple[str, ...]:
        modules = [f"module {name}" for name in self.modules if _has_module(name)]
        paths = [path for path in self.paths if glob(path)]
        tools = [tool for tool in self.tools if shutil.which(tool)]
        return (*modules, *paths, *tools)


_SIGNS = {
    "kunlun": _Signs(
        ("torch_xmlir", "xpytorch_import_hook"),
        ("/dev/xpu[0-9]*", "/dev/xpuctrl", "/usr/local/xpu", "/usr/local/xre"),
        ("xpu-smi",),
    ),
    "ascend": _Signs(("torch_npu",), ("/dev/davinci[0-9]*", "/dev/davinci_manager"), ("npu-smi",)),
    "cuda": _Signs((), ("/dev/nvidia[0-9]*", "/dev/nvidiactl"), ("nvidia-smi",)),
}


def detect(explicit: str | None = None) -> list[Detection]:
    """What each family finds here, in the order of choice: the explicit one, Kunlun, Ascend, NVIDIA, CPU.

    Never raises; the first finding with chips is the host's family. A family without a sign is not asked.
    """
    order = dict.fromkeys((explicit, *ORDER) if explicit else ORDER)
    return [_find(family, asked=family == explicit) for family in order]


def device_files(family: str) -> int:
    """How many chips of a family this host has by their device files; 0 where these do not tell."""
    paths = _SIGNS[family].paths if family in _SIGNS else ()
    return sum(len(glob(path)) for path in paths if path.endswith(_NUMBERED))


def torch_fault() -> str:
    """Why torch cannot be used in a fresh process of this Python, whatever the chips; empty if it can."""
    return ask("cpu").problem


def kunlun_hook() -> bool:
    """Whether `torch.cuda` of this Python is Kunlun's; its device names do not tell."""
    return os.environ.get("DISABLE_XPYTORCH") != "1" and any(map(_has_module, _SIGNS["kunlun"].modules))


def _find(family: str, asked: bool) -> Detection:
    if family == "cpu":
        return Detection("cpu", os.cpu_count() or 1, ())
    signs = _SIGNS[family].seen() if family in _SIGNS else ()
    if not signs and not asked:
        return Detection(family, 0, (), "no sign of it on this host")
    return replace(ask(family), signs=signs)


def ask(family: str, python: str | None = None, variables: Mapping[str, str] | None = None) -> Detection:
    """Which chips a fresh process of the family sees, and why none. With an interpreter and variables it is one as a
    pool's own processes are."""
    try:
        environment = {**os.environ, **process_environment(family), **(variables or {})}
        command = program("backends.probe", family, python=os.path.expanduser(python or sys.executable))
        done = _run(command, environment)
        answer = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, BackendError) as error:
        return Detection(family, 0, (), str(error))
    except (IndexError, ValueError):
        ended = f"the probe ended with status {done.returncode}: {done.stderr[-500:].strip()}"
        return Detection(family, 0, (), ended)
    told = int(answer["chips"]), (), str(answer["problem"]), str(answer["note"])
    return Detection(family, *told, tuple(map(str, answer["names"])))


def _run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Raises TimeoutExpired, whether or not the process can be killed then: a driver may hold it in the kernel."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        told = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(command, process.returncode, *told)


def _answer(family: str) -> dict[str, object]:
    try:
        backend = load_backend(find_family(family).name)
        chips = backend.count()
        names = tuple(dict.fromkeys(backend.device_names())) if chips else ()
        note = backend.examine() if chips else ""
    except Exception as error:  # whatever a vendor's plug-in raises is the answer
        return {"chips": 0, "problem": str(error), "note": "", "names": ()}
    return {"chips": chips, "problem": "" if chips else "torch counts no device", "note": note, "names": names}


def _has_module(name: str) -> bool:
    try:
        return name in sys.modules or find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def main(arguments: Sequence[str]) -> None:
    print(json.dumps(_answer(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Lets a torch that was built for CUDA run on a machine without: `python without_cuda.py TORCH_FOLDER`.

Such a torch loads CUDA's libraries, gigabytes of them, before it asks whether there is a chip. In their place this
builds libraries with the same names, functions and versions, which all say that there is none. For Linux on x86-64;
needs gcc and binutils.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

NO_DEVICE = 100  # cudaErrorNoDevice
_NEEDED = re.compile(r"\(NEEDED\).*\[((?:libcu|libnv|libnccl)[^\]]*)\]")
_VERSION = re.compile(r"File: (\S+) .*\n.*Name: (\S+)")
_UNDEFINED = re.compile(r"^\s+[Uw] (_*(?:cu|nccl|nv)\w*)(?:@(\S+))?", re.MULTILINE)
_TEXT = re.compile("String|Name|Version")


def build(libraries: Path) -> list[str]:
    """Beside torch's own libraries; the names of those that were made. Each has one version, or none."""
    needed, versions, functions = set[str](), dict[str, str](), defaultdict[str, set[str]](set)
    for library in libraries.glob("*.so*"):
        needed |= set(_NEEDED.findall(_said("readelf", "--dynamic", library)))
        versions |= dict(_VERSION.findall(_said("readelf", "--wide", "--version-info", library)))
        for function, version in _UNDEFINED.findall(_said("nm", "--dynamic", library)):
            functions[version].add(function)
    missing = sorted(name for name in needed if not (libraries / name).exists())
    for name in missing:
        version = versions.get(name, "")
        _link(libraries / name, functions[version], version)
    return missing


def _link(library: Path, functions: set[str], version: str) -> None:
    command = ["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{library.name}", "-x", "assembler", "-", "-o", library]
    with tempfile.NamedTemporaryFile("w", suffix=".map") as script:
        if version:
            script.write(f"{version} {{ global: {'; '.join(functions)}; }};")
            script.flush()
            command.append(f"-Wl,--version-script,{script.name}")
        subprocess.run(command, input=_source(functions), text=True, check=True)


def _source(functions: set[str]) -> str:
    """Assembly: one function of many names that returns a number, and one that returns a text."""
    texts = {name for name in functions if _TEXT.search(name)}
    return "\n".join([
        ".text", *_labels(functions - texts), f"mov ${NO_DEVICE}, %eax", "ret",
        *_labels(texts), "lea text(%rip), %rax", "ret",
        'text: .string "no CUDA here"', '.section .note.GNU-stack,"",@progbits', "",
    ])  # fmt: skip


def _labels(names: Iterable[str]) -> list[str]:
    return [f".globl {name}\n.type {name}, @function\n{name}:" for name in sorted(names)]


def _said(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    print(" ".join(build(Path(sys.argv[1]) / "lib")))

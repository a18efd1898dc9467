"""This host in numbers: everything that the checks judge, measured in one place. Starts no torch and no Ray."""

from __future__ import annotations

import mmap
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement

from backends.probe import Detection, detect, torch_fault
from backends.versions import driver, installed, interpreter, plugin_faults
from hetero.cluster.fleet import LOOPBACK
from hetero.cluster.host.loopback import listen_fault
from hetero.cluster.jobs.proxy import proxies

SHARED_MEMORY = Path("/dev/shm")
TRIED_BYTES = 64 * 1024**2
ResourceLimits = tuple[int, int]
"""Soft and hard; resource.RLIM_INFINITY is none."""


@dataclass(frozen=True)
class Space:
    """A place for files. `fault` says why nothing can be written there."""

    path: str
    free_bytes: int
    fault: str = ""


@dataclass(frozen=True)
class Machine:
    """`required` are the packages that hetero asks for, each with its condition; `torch_fault` says why torch cannot be
    imported; `plugin_faults` say, by package, what is wrong with it beside this torch, and what helps; `shared_memory`
    is None without /dev/shm; `memfd_fault` says why nameless memory cannot be had; `address` is how other hosts know
    this one; `listen_fault` says why no port of it can be bound, `loopback_fault` the same of the loopback; `proxies`
    are the variables that name one, or hosts without one."""

    host: str
    python: tuple[int, ...]
    packages: Mapping[str, str]
    required: Sequence[Requirement]
    torch_fault: str
    plugin_faults: Mapping[str, tuple[str, str]]
    chips: Sequence[Detection]
    drivers: Mapping[str, str]
    shared_memory: Space | None
    memfd_fault: str
    open_files: ResourceLimits
    locked_memory: ResourceLimits
    run_dir: Space
    address: str
    interfaces: Sequence[str]
    listen_fault: str
    loopback_fault: str
    home: Space
    proxies: Mapping[str, str]


def measure(run_dir: Path) -> Machine:
    """Torch is asked in processes of its own, which takes some seconds."""
    required = _required()
    found = detect()
    address = own_address()
    return Machine(
        host=socket.gethostname(),
        python=sys.version_info[:3],
        packages=interpreter() | installed(tuple(one.name for one in required)),
        required=required,
        torch_fault=torch_fault(),
        plugin_faults=plugin_faults(),
        chips=found,
        drivers={one.family: told for one in found if (told := driver(one.family))},
        shared_memory=space(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None,
        memfd_fault=memfd_fault(TRIED_BYTES),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        locked_memory=resource.getrlimit(resource.RLIMIT_MEMLOCK),
        run_dir=space(run_dir),
        address=address,
        interfaces=[name for _, name in socket.if_nameindex()],
        listen_fault=listen_fault(address),
        loopback_fault=listen_fault(LOOPBACK),
        home=home(),
        proxies=proxies(),
    )


def space(folder: Path) -> Space:
    """Where the folder is, or would be made; leaves nothing there."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))
    fault = ""
    try:
        folder.exists()  # raises where there could be no such folder
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"hetero")
    except OSError as error:
        fault = error.strerror or str(error)
    return Space(str(folder), shutil.disk_usage(place).free, fault)


def memfd_fault(n_bytes: int) -> str:
    """Takes and gives back so much memory without a name, as the bridge's slots do."""
    try:
        fd = os.memfd_create("hetero-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (OSError, AttributeError) as error:
        return str(getattr(error, "strerror", "") or error)
    try:
        os.posix_fallocate(fd, 0, n_bytes)
        mmap.mmap(fd, n_bytes).close()
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(fd)
    return ""


def own_address() -> str:
    """The address of the interface that leads out, the loopback's if none does. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
        try:
            way_out.connect(("192.0.2.1", 9))
            return str(way_out.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def home() -> Space:
    """Where tools keep what they know of a user."""
    folder = os.path.expanduser("~")
    return space(Path(folder)) if os.path.isabs(folder) else Space("~", 0, "no home is known for this user")


def _required() -> list[Requirement]:
    """Nothing is known of packages that came with a job, without their metadata."""
    try:
        asked = [Requirement(line) for line in requires("hetero") or ()]
    except PackageNotFoundError:
        return []
    return [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]

"""A host on which nothing is wrong."""

from __future__ import annotations

import resource

from packaging.requirements import Requirement

from backends.probe import Detection
from hetero.cluster.doctor.machine import Machine, Space

GIB = 1024**3
EIGHT = Detection("ascend", 8, ("/dev/davinci[0-9]*",))
GOOD = Machine(
    host="a",
    python=(3, 11, 7),
    packages={"python": "3.11.7", "torch": "2.13.0+cpu", "ray": "2.60.0", "torch-npu": "2.13.0"},
    required=[Requirement("torch>=2.5"), Requirement("ray[default]>=2.52")],
    torch_fault="",
    plugin_faults={},
    chips=[EIGHT, Detection("cuda", 0, (), "no sign of it on this host"), Detection("cpu", 64, ())],
    drivers={"ascend": "24.1.0"},
    shared_memory=Space("/dev/shm", 8 * GIB),
    memfd_fault="",
    open_files=(1024, 65536),
    locked_memory=(resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    run_dir=Space("runs", 100 * GIB),
    address="10.0.0.1",
    interfaces=["lo", "eth0"],
    listen_fault="",
    loopback_fault="",
    home=Space("/home/a", GIB),
    proxies={},
)

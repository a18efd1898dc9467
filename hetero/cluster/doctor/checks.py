"""What is asked of a host, whatever the job. Pure: a measured machine in, findings out."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping

from backends.errors import ChipError
from backends.identify import identify
from backends.probe import Detection
from backends.sizes import size_text
from hetero.cluster.doctor.finding import Finding, judged
from hetero.cluster.doctor.machine import TRIED_BYTES, Machine, ResourceLimits, Space

OLDEST_PYTHON = (3, 10)
FEWEST_FILES, GOOD_FILES = 1024, 8192
GOOD_SHARED_BYTES = 1024**3
FEWEST_DISK_BYTES, GOOD_DISK_BYTES = 256 * 1024**2, 5 * 1024**3
DEVICE_FILES = "/dev/"


def examine(machine: Machine) -> list[Finding]:
    """Every check of one host, in the order in which one would mend."""
    return [
        python(machine),
        *packages(machine),
        torch(machine.torch_fault),
        *(chips(one, machine.drivers.get(one.family)) for one in machine.chips),
        shared_memory(machine.shared_memory),
        nameless_memory(machine.memfd_fault),
        open_files(machine.open_files),
        locked_memory(machine.locked_memory, any(one.chips for one in machine.chips if one.signs)),
        disk(machine.run_dir),
        home(machine.home),
        loopback(machine.loopback_fault),
        network(machine),
        proxy(machine.proxies),
    ]


def python(machine: Machine) -> Finding:
    value = ".".join(map(str, machine.python))
    oldest = ".".join(map(str, OLDEST_PYTHON))
    remedy = f"make the environment with Python {oldest} or newer"
    return judged("python", value, f"{oldest} or newer", remedy, error=machine.python < OLDEST_PYTHON)


def packages(machine: Machine) -> Iterator[Finding]:
    """Those that hetero requires, then those that it only knows of."""
    for one in machine.required:
        there = machine.packages.get(one.name)
        fits = there is not None and one.specifier.contains(there, prereleases=True)
        rule = f"{one.specifier}" if one.specifier else "installed"
        yield judged(one.name, there or "missing", rule, f"pip install '{one}'", error=not fits)
    known = {one.name for one in machine.required} | {"python"}
    for name, version in machine.packages.items():
        if name not in known:
            fault, remedy = machine.plugin_faults.get(name, ("", ""))
            yield judged(name, version, fault, remedy, error=bool(fault))


def torch(fault: str) -> Finding:
    remedy = "reinstall torch, in a build for this host; its own message says what is missing"
    return judged("torch in use", fault or "can be imported", "by every rank", remedy, error=bool(fault))


def chips(found: Detection, driver: str | None) -> Finding:
    """A device that is there and cannot be used stands in the way; a vendor's tool or package without one does not."""
    check, by = f"chips of {found.family}", f", driver {driver}" if driver else ""
    if found.chips:
        note = f"; {found.note}" if found.note else ""
        return Finding(
            "ok", check, f"{found.chips}{by}{_called(found)}{note}", "as torch counts them" if found.signs else ""
        )
    if not found.signs:
        return Finding("ok", check, "none", found.problem)
    devices = any(sign.startswith(DEVICE_FILES) for sign in found.signs)
    value = f"none that can be used, but {', '.join(found.signs)}{by}"
    remedy = "install the torch and the plug-in that go with the driver, and check the variables that hide chips"
    return judged(check, value, found.problem, remedy, error=devices, warning=True)


def _called(found: Detection) -> str:
    """Which data sheet a job takes for these chips if it names none."""
    if not found.names:
        return ""
    told = f"; they call themselves {' and '.join(found.names)}"
    try:
        return f"{told}, which is {identify(found.family, found.names)}"
    except ChipError as error:
        return f"{told}: {error.rule}, so a job must name its chip"


def shared_memory(there: Space | None) -> Finding:
    rule = f"{size_text(GOOD_SHARED_BYTES)} free, for Ray's objects and the collectives of chips"
    remedy = "docker run --shm-size=8g, or an emptyDir of medium Memory at /dev/shm"
    if there is None:
        return Finding("warning", "/dev/shm", "missing", rule, remedy)
    if there.fault:
        return Finding("error", there.path, there.fault, "everybody may write there", "chmod 1777 /dev/shm")
    free = there.free_bytes
    return judged(there.path, f"{size_text(free)} free", rule, remedy, warning=free < GOOD_SHARED_BYTES)


def nameless_memory(fault: str) -> Finding:
    rule = f"ranks share their slots in it; {size_text(TRIED_BYTES)} were tried"
    remedy = "Linux 3.17 or newer, and more memory for this container or user"
    return judged("memfd", fault or "works", rule, remedy, error=bool(fault))


def open_files(limits: ResourceLimits) -> Finding:
    """Processes raise the soft limit to the hard one by themselves."""
    most = limits[1]
    rule = f"{GOOD_FILES} or more as hard limit, for connections and slots"
    remedy = "ulimit -Hn 65536 before Ray is started, or nofile in /etc/security/limits.conf"
    few, less = (most != resource.RLIM_INFINITY and most < limit for limit in (FEWEST_FILES, GOOD_FILES))
    return judged("open files", _limits(limits), rule, remedy, error=few, warning=less)


def locked_memory(limits: ResourceLimits, has_chips: bool) -> Finding:
    value = _limits((_in_mib(limits[0]), _in_mib(limits[1])), " MiB")
    rule = "unlimited on hosts with chips, whose collectives lock the memory that the network reads"
    remedy = "ulimit -l unlimited before Ray is started, or memlock in /etc/security/limits.conf"
    return judged("locked memory", value, rule, remedy, warning=has_chips and limits[0] != resource.RLIM_INFINITY)


def disk(there: Space) -> Finding:
    check = f"disk of {there.path}"
    if there.fault:
        return Finding("error", check, there.fault, "the run is recorded there", "name another folder with --run-dir")
    free = there.free_bytes
    rule = f"{size_text(GOOD_DISK_BYTES)} free, for metrics, tokens and checkpoints"
    remedy = "free some, or name another folder with --run-dir"
    return judged(
        check, f"{size_text(free)} free", rule, remedy, error=free < FEWEST_DISK_BYTES, warning=free < GOOD_DISK_BYTES
    )


def home(there: Space) -> Finding:
    remedy = "set HOME to a folder that can be written"
    value = f"{there.path}: {there.fault}" if there.fault else there.path
    return judged("home", value, "can be written; measurements are kept there", remedy, warning=bool(there.fault))


def loopback(fault: str) -> Finding:
    remedy = "ip link set lo up, or give the container a network"
    return judged("loopback", fault or "works", "a run's processes reach each other there", remedy, error=bool(fault))


def proxy(found: Mapping[str, str]) -> Finding:
    value = ", ".join(f"{name}={told}" for name, told in found.items()) or "none"
    return Finding("ok", "proxy", value, "only job servers (http://HEAD:8265) are asked through one" if found else "")


def network(machine: Machine) -> Finding:
    value = f"{machine.address} ({', '.join(machine.interfaces)})"
    if machine.listen_fault:
        value = f"{machine.address}: {machine.listen_fault}"
    remedy = "let programs listen on this address: firewall, container network, sysctl net.ipv4.ip_local_port_range"
    return judged("network", value, "a free port can be had and reached", remedy, error=bool(machine.listen_fault))


def _in_mib(n_bytes: int) -> int:
    return n_bytes if n_bytes == resource.RLIM_INFINITY else n_bytes // 2**20


def _limits(limits: ResourceLimits, unit: str = "") -> str:
    soft, hard = ("unlimited" if one == resource.RLIM_INFINITY else f"{one}{unit}" for one in limits)
    return f"{soft}, at most {hard}"

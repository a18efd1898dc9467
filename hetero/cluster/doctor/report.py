"""What a stranger needs to know of a host to help with its chips: one object, without anything private."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from backends.surroundings import listened_to
from backends.versions import build_of_torch
from hetero.cluster.doctor.finding import Finding, blocking
from hetero.cluster.doctor.machine import Machine
from hetero.masking import concealed


def report(
    machine: Machine,
    findings: Sequence[Finding],
    links: Sequence[Mapping[str, Any]],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """Plain data. Values of variables whose names say that they are secret are masked, and so are passwords in
    addresses; the host's name and address are left out."""
    return {
        "system": {"platform": platform.platform(), "cpu": platform.machine()},
        "packages": dict(machine.packages),
        "torch": {"fault": machine.torch_fault, "build": build_of_torch()},
        "pairs": {name: {"fault": fault, "remedy": remedy} for name, (fault, remedy) in machine.plugin_faults.items()},
        "chips": [asdict(one) for one in machine.chips],
        "drivers": dict(machine.drivers),
        "interfaces": list(machine.interfaces),
        "environment": concealed("environment", listened_to(environment)),
        "findings": [one.as_data() for one in findings if one.check != "network"],
        "blocks": blocking(findings),
        "links": list(links),
    }

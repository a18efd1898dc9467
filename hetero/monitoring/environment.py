"""What a run was made with, for its journal: versions of the driver's side. Nothing is imported for it."""

from __future__ import annotations

import platform
import socket
from typing import Any

from backends.versions import installed, interpreter

DRIVERS_OWN = ("hetero", "ray", "pyzmq", "grpcio")


def drivers_environment() -> dict[str, Any]:
    """The driver's machine and software, as the event `started` has them."""
    software = {"os": platform.platform(), **interpreter(), **installed(DRIVERS_OWN)}
    return {"node": socket.gethostname(), "software": software}

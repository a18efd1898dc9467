"""What keeps strangers from a Ray cluster, and from what crosses the network to it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hetero.cluster.doctor.finding import Finding, judged
from hetero.cluster.jobs.proxy import is_loopback

if TYPE_CHECKING:
    from hetero.cluster.jobs.jobs import JobServer

TLS = "RAY_USE_TLS"


def of_joined() -> list[Finding]:
    """Of the cluster that this process has joined."""
    import ray

    from hetero.cluster.onray.runtime import hears_strangers

    address = ray.get_runtime_context().gcs_address
    has_tls = os.environ.get(TLS, "").lower() in ("1", "true")  # as Ray reads it, and by which it has joined
    is_open = not has_tls and hears_strangers(address)
    return [token(is_open), tls(has_tls, is_loopback(address.rpartition(":")[0]))]


def of_server(server: JobServer) -> list[Finding]:
    """Of a job server, and of the way to it."""
    url = urlsplit(server.address)
    return [token(server.hears_strangers()), way(url.scheme, is_loopback(url.hostname or ""))]


def token(is_open: bool) -> Finding:
    value = "none is asked for" if is_open else "asked for"
    rule = "whoever reaches the head of a cluster without one may run code on all its hosts"
    remedy = "ray get-auth-token --generate, and RAY_AUTH_MODE=token wherever Ray and hetero are started"
    return judged("Ray's token", value, rule, remedy, warning=is_open)


def tls(is_on: bool, on_one_machine: bool) -> Finding:
    value = "on" if is_on else "off, on one machine" if on_one_machine else "off"
    rule = "without it all that hosts tell each other through Ray can be read and changed on the way"
    remedy = (
        f"{TLS}=1, with RAY_TLS_SERVER_CERT, RAY_TLS_SERVER_KEY and RAY_TLS_CA_CERT, wherever Ray and hetero are "
        "started; else let nobody but the cluster into its network"
    )
    return judged("Ray's TLS", value, rule, remedy, warning=not is_on and not on_one_machine)


def way(scheme: str, on_this_machine: bool) -> Finding:
    rule = "jobs, their secrets and the cluster's token pass a network in clear by http"
    remedy = "ssh -L 8265:localhost:8265 HEAD and --address http://localhost:8265, or https in front of the job server"
    value = f"{scheme}, to this machine" if on_this_machine else scheme
    return judged("way to the job server", value, rule, remedy, warning=scheme == "http" and not on_this_machine)


def warnings(findings: Iterable[Finding]) -> list[str]:
    """In a line each, for those who asked for something else."""
    return [f"{one.check}: {one.value}: {one.rule}; {one.remedy}" for one in findings if one.level == "warning"]

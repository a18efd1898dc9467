"""The HTTP proxy that the environment may put between this machine and a cluster's job server."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

import requests

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def proxies() -> dict[str, str]:
    """The variables that are set, in small letters or capitals, without passwords."""
    names = (spelt for name in VARIABLES for spelt in (name, name.upper()))
    return {name: masked(os.environ[name]) for name in names if os.environ.get(name)}


def proxy_to(url: str) -> str | None:
    """The proxy that a request would go through, without its password; None where it goes directly."""
    found = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    return masked(found) if found else None


def reach_loopback_directly(url: str) -> None:
    """A proxy's own loopback is another one; so this process passes by it on the way to ours."""
    host = urlsplit(url).hostname or ""
    if not is_loopback(host):
        return
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    for variable in ("no_proxy", "NO_PROXY"):
        os.environ[variable] = ",".join(filter(None, (known, host)))


def masked(proxy: str) -> str:
    """Without the user's name and password."""
    scheme, found, rest = proxy.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if found else proxy.rpartition("@")[2]


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine to itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

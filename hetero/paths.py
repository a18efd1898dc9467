"""Paths as people write them: from a home (`~`), or as an address (`file:///`). Every key and option that is one goes
through here."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator

from hetero.errors import ExplainedError

_READ_ONLY = {"http", "https", "data", "github"}
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)|(file):()(/.*)", re.DOTALL | re.IGNORECASE)


class PathError(ExplainedError):
    """A text that names no path of this machine."""


class _NoPath(ValueError):
    def __init__(self, rule: str, remedy: str) -> None:
        super().__init__(f"{rule}: {remedy}")
        self.rule, self.remedy = rule, remedy


def scheme_of(text: str) -> str | None:
    """In lower case, of an address of anything but files; None of a path."""
    address = _ADDRESS.match(text)
    scheme = (address[1] or "file").lower() if address else "file"
    return None if scheme == "file" else scheme


def path_text(text: str) -> str:
    """The path that is meant, its `~` left to the machine that uses it. Raises ValueError where none is."""
    if address := _ADDRESS.match(text):
        scheme, server, place = (part for part in address.groups() if part is not None)
        if scheme.lower() != "file":
            raise _NoPath(f"is no path but an address of {scheme}", "mount that store as a folder, and name the folder")
        if server not in ("", "localhost"):
            rule = f"is a file of the server {server!r}"
            raise _NoPath(rule, "file:///path, with three slashes, is one of this machine; mount a server's")
        text = unquote(place)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        remedy = "set PYTHONUTF8=1 if it is UTF-8, else rename it"
        raise _NoPath("has letters that this machine's locale cannot read", remedy)
    if not text.strip() or "\0" in text:
        raise _NoPath("has a null character in it" if text.strip() else "is empty", "name a file or folder")
    return text


def path_or_address(text: str) -> str:
    """As `path_text`; or, as it is, the address of a store that fsspec knows. Raises ValueError."""
    if (scheme := scheme_of(text)) is None:
        return path_text(text)
    from fsspec import available_protocols

    if scheme not in available_protocols() or scheme in _READ_ONLY or "::" in text:
        raise _NoPath(f"is an address of {scheme}, where nothing can be saved", "name a folder, or a store of fsspec's")
    if re.match(r"[^/]*//[^/@]*:[^/@]*@", text):
        remedy = "leave it to the store's own settings: variables or files that its package reads"
        raise _NoPath("has a password in it, which a job file shows to many", remedy)
    if text.rstrip("/") in (f"{scheme}:", f"{scheme}:/"):
        raise _NoPath("names no place in the store", f"write {scheme}://PLACE")
    return text


PathText = Annotated[str, AfterValidator(path_text)]
"""A path in the job file."""


def spelt(text: str, key: str) -> str:
    """As `path_text`, of what `key` names to the user. Raises PathError."""
    try:
        return path_text(text)
    except _NoPath as error:
        raise PathError(key, text, error.rule, error.remedy) from None


def local(text: str | Path, key: str) -> Path:
    """The path on this machine, whose homes it knows; `key` names it to the user. Raises PathError."""
    path = spelt(str(text), key)
    found = os.path.expanduser(path)
    if found.startswith("~"):
        rule = f"the home {path.split('/')[0]} is not known on this machine"
        raise PathError(key, path, rule, "write the path out; a folder of that very name is ./~")
    return Path(found)


def cache_home() -> Path:
    """Where this user's caches of ours lie. Raises OSError without a home."""
    place = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", ""))
    if not os.path.isabs(place):  # to be passed over, say the rules of XDG
        place = os.path.expanduser("~/.cache")
    if not os.path.isabs(place):
        raise OSError("no home is known for this user; set HOME or XDG_CACHE_HOME to a folder")
    return Path(place, "hetero")

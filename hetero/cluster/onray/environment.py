"""What Ray reads from the environment, where it is ours to say.

A Ray of our own is the same whatever shell it is started from, that of another cluster's job too.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping

from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

_RAYS = re.compile(r"RAY_[A-Z]")
PRIVATE = {
    "RAY_AUTH_MODE": "token",  # keeps other users of this machine out
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # off is Ray's word for: listen on the loopback alone
    "SPT_NOENV": "1",  # Ray's processes rename themselves, and would write over the environment that bears the mark
}


def is_rays(name: str) -> bool:
    """Whether a variable says which Ray to use and how to reach it. Those in small letters, such as
    RAY_memory_usage_threshold, only tune Ray's own processes."""
    return _RAYS.match(name) is not None


@contextlib.contextmanager
def private_environment(token: str, more: Mapping[str, str]) -> Iterator[None]:
    """Nothing that is said of another Ray holds inside, where one of our own is started, which admits who has `token`.
    Ray remembers that afterwards, until it is told to `look_again`.

    The token in the environment also keeps Ray from writing one into the home folder."""
    others = dict.fromkeys(filter(is_rays, os.environ))
    with variables({**others, **PRIVATE, "RAY_AUTH_TOKEN": token, **more}):
        look_again()
        yield


@contextlib.contextmanager
def variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """Has the environment so inside; None is a variable that is not there."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def look_again() -> None:
    """Has Ray read the environment anew, what it remembers of it notwithstanding."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()

"""Values that are nobody else's business: where a job holds them, and what stands instead of them wherever it is shown
or recorded.

They are the variables of `pools.X.env.vars` that are not public, the options of trackers whose names say so, and the
passwords in addresses.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

MASK = "(not shown)"
PUBLIC = frozenset(
    {
        "LANG", "LC_ALL", "LD_LIBRARY_PATH", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH",
        "PYTHONHASHSEED", "PYTHONPATH", "PYTHONUNBUFFERED", "TZ",
    }
)  # fmt: skip
"""Variables that hold no secrets, whether a job says so or not."""
SHORTEST = 8
"""A shorter value is not looked for in messages: it would be found in innocent words."""
_SECRET = re.compile(r"(^|[_-])(key|apikey|token|secret|password|passwd|credential)s?$", re.IGNORECASE)
_IN_ADDRESS = re.compile(
    r"(?P<user>://[^/\s:?#]*:)(?P<password>[^/\s?#]+)(?=@)|(?P<alone>https?://)(?P<name>[^/\s:?#]+)(?=@[^/\s?#@(]*(?:[/\s?#]|$))"
    r"|(?P<asked>[?&#](?:[\w-]*[_-])?(?:key|apikey|token|secret|password|sig|signature)=)"
    r"(?P<answer>(?!\(not shown\))[^&\s#]+)",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(r"\bpools\.[^.\s]+\.env(\.vars(\.(?P<name>\S+))?)?$")
_PRIVATE_SETTING = re.compile(r"\s*pools\.[^.\s]+\.env\b")
_OPTION_KEY = re.compile(r"\.options\.(?:.*\.)?(?P<name>[^.]+)$")


def masked(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job as plain data, with a mask for each value that is nobody else's business."""
    shown = dict(copy.deepcopy(job))
    for holder, name in _places(shown):
        holder[name] = MASK
    return _each_text(shown, without_passwords)


def secret_values(job: Mapping[str, Any]) -> tuple[str, ...]:
    """Those values, but for short ones, the longest first."""
    found = {str(holder[name]) for holder, name in _places(job)}
    _each_text(job, lambda text: found.update(_passwords(text)))
    return tuple(sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True))


def hidden(data: Any, secrets: Iterable[str]) -> Any:
    """Plain data in whose texts a mask stands for each of the values."""

    def hide(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, MASK)
        return text

    return _each_text(data, hide)


def first_masked(data: Any, key: str = "") -> str | None:
    """The dotted key of a value that a mask stands for; None where all are told."""
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(data, Mapping):
        parts = ((f"{key}.{name}".lstrip("."), part) for name, part in data.items())
    elif isinstance(data, (list, tuple)):
        parts = ((f"{key}[{index}]", part) for index, part in enumerate(data))
    elif isinstance(data, str) and MASK in data:
        return key
    return next((found for place, part in parts if (found := first_masked(part, place)) is not None), None)


def without_passwords(text: str) -> str:
    """A text in which the addresses have none."""
    return _IN_ADDRESS.sub(lambda found: f"{found['user'] or found['alone'] or found['asked']}{MASK}", text)


def concealed(key: str, value: Any) -> Any:
    """A value as an error about this key may show it."""
    if value is not None and _is_private(key):
        return MASK
    if isinstance(value, str) and key == "--set" and _PRIVATE_SETTING.match(value):
        return MASK
    if isinstance(value, Mapping):
        return {name: MASK if name == "vars" else concealed(f".options.{name}", part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([concealed(key, part) for part in value]) if type(value) in (list, tuple) else value
    return without_passwords(value) if isinstance(value, str) else value


def _is_private(key: str) -> bool:
    variable, option = _PRIVATE_KEY.search(key), _OPTION_KEY.search(key)
    if variable:
        return variable["name"] not in PUBLIC
    return bool(option and _SECRET.search(option["name"]))


def _places(job: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Holder and name of each private value. The data may be a stranger's."""
    for pool in _values(job.get("pools")):
        env = pool.get("env") if isinstance(pool, dict) else None
        if not isinstance(env, dict):
            continue
        public = env.get("public")
        known = PUBLIC | {name for name in public if isinstance(name, str)} if isinstance(public, list) else PUBLIC
        if isinstance(env.get("vars"), dict):
            yield from ((env["vars"], name) for name in env["vars"] if name not in known)
        elif "vars" in env:
            yield env, "vars"
    monitor = job.get("monitor")
    trackers = monitor.get("trackers") if isinstance(monitor, dict) else None
    for tracker in trackers if isinstance(trackers, list) else ():
        yield from _named_so(tracker.get("options") if isinstance(tracker, dict) else None)


def _named_so(options: Any) -> Iterator[tuple[dict[str, Any], str]]:
    for name, value in options.items() if isinstance(options, dict) else ():
        if isinstance(name, str) and _SECRET.search(name) and value is not None:
            yield options, name
        else:
            yield from _named_so(value)


def _values(section: Any) -> list[Any]:
    return list(section.values()) if isinstance(section, dict) else []


def _passwords(text: str) -> Iterator[str]:
    return (found["password"] or found["name"] or found["answer"] for found in _IN_ADDRESS.finditer(text))


def _each_text(data: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(data, str):
        return change(data)
    if isinstance(data, Mapping):
        return {name: _each_text(part, change) for name, part in data.items()}
    if isinstance(data, (list, tuple)):
        parts = [_each_text(part, change) for part in data]
        return tuple(parts) if isinstance(data, tuple) else parts
    return data

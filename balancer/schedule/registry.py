"""The schedules by name: every one that lies in `balancer/schedule/orders/`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules

from balancer.errors import ScheduleError, did_you_mean
from balancer.schedule import orders
from balancer.schedule.schedule import Schedule


def schedules() -> tuple[str, ...]:
    """Their names."""
    return tuple(sorted(_known()))


def searched_schedules() -> tuple[str, ...]:
    """Of which a search may choose one: the untimed ones first, which cost less to make."""
    return tuple(sorted((name for name in schedules() if _known()[name].searched), key=lambda n: _known()[n].timed))


def schedule(name: str) -> Schedule:
    """The schedule of that name. Raises ScheduleError for an unknown one."""
    if name not in _known():
        raise ScheduleError("schedule", name, "no such schedule", did_you_mean(name, schedules()))
    return _known()[name]


@cache
def _known() -> dict[str, Schedule]:
    found: dict[str, Schedule] = {}
    for module in iter_modules(orders.__path__, f"{orders.__name__}."):
        for kind in vars(import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, Schedule) and not isabstract(kind):
                found[kind.name] = kind()
    return found

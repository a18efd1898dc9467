"""What if: a job planned over and over, each time with other values at some keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

from hetero.errors import is_user_mistake
from hetero.job.errors import JobError
from hetero.job.file.load import JobSource, load_job
from hetero.job.job import Job
from hetero.job.planning.plan_job import Planned

_LINKS = "links."
_MOST = 256


@dataclass(frozen=True)
class Variant:
    """`settings` are key=value as they were asked for; where the job cannot be planned with them, `why_not` says so."""

    settings: tuple[str, ...]
    planned: Planned | None
    why_not: str = ""


def variants(
    job: JobSource, settings: Sequence[str], asked: Sequence[str], plan: Callable[[Job], Planned]
) -> Iterator[Variant]:
    """Of every combination of the values that are asked for: each of `asked` reads key=value, or key=value,value,...

    Links may be named by the pools that they join: links.nvidia-ascend.gbit_per_s=100. Values that no job may have, or
    with which no plan fits, are a variant without one. Raises JobError where none of them makes a job, as for what is
    no key, and for too many combinations."""
    every = list(product(*map(_choices, asked)))
    if len(every) > _MOST:
        rule = f"are {len(every)} combinations of values, of at most {_MOST}"
        raise JobError("--what-if", " ".join(asked), rule, "ask for fewer values at a time")
    keys = {key: _key(job, settings, key) for key in (one.partition("=")[0].strip() for one in asked)}
    jobs = [_changed(job, [*settings, *(_set(one, keys) for one in chosen)]) for chosen in every]
    if all(isinstance(found, JobError) for found in jobs):
        raise jobs[0]  # type: ignore[misc]
    for chosen, found in zip(every, jobs, strict=True):
        yield _variant(chosen, found, plan)


def _changed(job: JobSource, settings: Sequence[str]) -> Job | JobError:
    try:
        return load_job(job, settings)
    except JobError as error:
        return error


def _variant(chosen: tuple[str, ...], job: Job | JobError, plan: Callable[[Job], Planned]) -> Variant:
    try:
        if isinstance(job, JobError):
            raise job
        return Variant(chosen, plan(job))
    except Exception as error:
        if not is_user_mistake(error):
            raise
        return Variant(chosen, None, f"{error.key}: {error.rule}")  # type: ignore[attr-defined]


def _choices(asked: str) -> list[str]:
    key, equals, values = asked.partition("=")
    if not equals or not key.strip():
        rule, remedy = "reads key=value, or key=value,value", "for example --what-if train.global_batch=256,512"
        raise JobError("--what-if", asked, rule, remedy)
    return [f"{key.strip()}={value}" for value in _split(values)]


def _set(chosen: str, keys: Mapping[str, str]) -> str:
    key, _, value = chosen.partition("=")
    return f"{keys[key]}={value}"


def _split(values: str) -> list[str]:
    """At commas that are in no bracket or quotation."""
    found, depth, quote = [""], 0, ""
    for letter in values:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth and not quote:
            found.append("")
        else:
            found[-1] += letter
    return [value.strip() for value in found]


def _key(source: JobSource, settings: Sequence[str], key: str) -> str:
    """As the job file has it."""
    if not key.startswith(_LINKS):
        return key
    job = load_job(source, settings)
    ends, dot, rest = key.removeprefix(_LINKS).partition(".")
    known = {f"{a}-{b}": {a, b} for a, b in combinations(job.pools, 2)}
    pools = next(
        (found for found in known.values() if dot and ends in ("-".join(p) for p in permutations(found))), None
    )
    if pools is None:
        rule, remedy = "names no link between two pools of the job", f"links are {', '.join(known) or 'none'}"
        raise JobError("--what-if", key, rule, remedy)
    for number, link in enumerate(job.bridge.links):
        if set(link.between) == pools:
            return f"bridge.links[{number}].{rest}"
    remedy = f"describe it in bridge.links: {{between: [{', '.join(sorted(pools))}]}}"
    raise JobError("--what-if", key, "is a link of which the job says nothing", remedy)

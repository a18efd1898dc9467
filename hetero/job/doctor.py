"""What one job asks of this host, or of a cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from backends.errors import ChipError
from backends.identify import AUTO, identify
from backends.probe import Detection
from backends.sizes import size_text
from bridge.precision import ITEM_BYTES
from hetero.checkpoint.address import StoreAddress
from hetero.checkpoint.errors import CheckpointError
from hetero.cluster.doctor.finding import Finding, judged
from hetero.cluster.doctor.machine import Machine, Space, space
from hetero.cluster.fleet import LOOPBACK
from hetero.cluster.host.loopback import listen_fault
from hetero.cluster.options import PoolOptions, fleet_of
from hetero.cluster.placement import Node, PlacementError, asks_of, place
from hetero.data.source_files import SourceFiles
from hetero.data.tokenizing.loading import load_tokenizer
from hetero.errors import explains_itself
from hetero.job.job import Job
from hetero.job.planning.cache import cache_folder
from hetero.job.planning.chips import AskChips, ask_here, chip_of, unidentified_pools, with_chips
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.problem import workload
from hetero.job.run.claim import held_by
from hetero.job.run.model import checked_weights
from hetero.job.run.spec import fleet_links
from hetero.models.registry import NATIVE, provider, served
from hetero.paths import scheme_of

STATE_BYTES = 12
"""Of a parameter in a checkpoint: itself and the two moments of AdamW, in float32."""


def examine_job(job: Job, machine: Machine, run_dir: Path, nodes: Sequence[Node] | None = None) -> list[Finding]:
    """With the `nodes` of a cluster the pools need a place there, else all of them run on this host."""
    pools = _pools_here(job, machine) if nodes is None else _pools_there(job, nodes)
    plan = [] if job.unidentified else _plan(job)
    return [
        _model(job, nodes is not None),
        *plan,
        *pools,
        *(_modules(job) if nodes is None else ()),
        _data(job, nodes is not None),
        *_storage(job, run_dir, nodes),
        *_ports(job),
    ]


def taken(run_dir: Path) -> Iterator[Finding]:
    """Where a run goes on no other can be recorded."""
    if (claim := held_by(run_dir)) is not None:
        remedy = "name another --run-dir, or wait until that run has ended"
        yield Finding("error", "--run-dir", f"{run_dir}: written by {claim}", "no other run writes there", remedy)


def cache() -> Finding:
    """A convenience, whatever is wrong with it."""
    rule, remedy = "measurements are kept there between runs", "set XDG_CACHE_HOME to a folder that can be written"
    try:
        there = space(cache_folder())
    except OSError as error:
        return Finding("warning", "cache", str(error), rule, remedy)
    value = f"{there.path}: {there.fault}" if there.fault else there.path
    return judged("cache", value, rule, remedy, warning=bool(there.fault))


def name_chips(job: Job, ask: AskChips | None = ask_here) -> tuple[Job, list[Finding]]:
    """The job with the chips that pools leave to say what they are, as far as they do, and what there is to tell.
    `ask` is None where they can not be asked from here."""
    if ask is None:
        rule = "the chips say what they are when the run starts"
        return job, [Finding("ok", f"pools.{name}.chip", AUTO, rule) for name in job.unidentified]
    findings, named = [], {}
    try:
        for name, found in (ask(unidentified_pools(job)) if job.unidentified else {}).items():
            named[name] = chip_of(name, job.pools[name], found)
            rule = f"taken, since the chips call themselves {' and '.join(found.names)}"
            findings.append(Finding("ok", f"pools.{name}.chip", named[name], rule))
        return with_chips(job, named), findings
    except Exception as error:
        if not explains_itself(error):
            raise
        return job, [*findings, Finding.of(error)]


def _model(job: Job, elsewhere: bool) -> Finding:
    """On a cluster a directory that is here must be there as well, which a run compares."""
    value = job.model.told()
    try:
        by = served(job.model.resolve())
        if checked_weights(job) is None:
            return Finding("ok", "model", value, by)
    except Exception as error:
        if not explains_itself(error):
            raise
        return Finding.of(error)
    also = "; each host must have it, which a run compares" if elsewhere else ""
    return Finding("ok", "model", value, f"{by}; its weights are whole{also}")


def _modules(job: Job) -> Iterator[Finding]:
    """Ranks of a model on transformers' own modules need these in their interpreter."""
    if provider(job.model.resolve()) == NATIVE:
        return
    for name, pool in job.pools.items():
        python = os.path.expanduser(pool.env.python or sys.executable)
        ask = [python, "-c", "from importlib.metadata import version; print(version('transformers'))"]
        try:
            found = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            found = ""
        rule = "the model runs on transformers' own modules, which its ranks import"
        value = f"transformers {found}" if found else f"{python} has no transformers"
        yield judged(f"pools.{name}.env.python", value, rule, f"{python} -m pip install transformers", error=not found)


def _plan(job: Job) -> Iterator[Finding]:
    try:
        planned = plan_job(job)
    except Exception as error:
        if not explains_itself(error):
            raise
        yield Finding.of(error, "plan")
        return
    pools = dict.fromkeys(stage.pool for _, stage in planned.plan.stages())
    yield Finding("ok", "plan", f"over {', '.join(pools)}", "fits the memory of every chip, by datasheet and reserve")
    for idle in planned.idle:
        value = f"{idle.chips} of {idle.count} chips idle"
        yield Finding("warning", f"plan, pools.{idle.pool}", value, idle.why, idle.remedy)


def _pools_here(job: Job, machine: Machine) -> Iterator[Finding]:
    """Pools of one family share this host's chips of it."""
    there = {found.family: found for found in machine.chips}
    asked = Counter({pool.family: 0 for pool in job.pools.values()})
    for name, pool in job.pools.items():
        if pool.emulate is not None:
            yield Finding("ok", f"pools.{name}", f"{pool.count} emulated {pool.chip}", "needs no chip")
        else:
            asked[pool.family] += pool.count
            found = there.get(pool.family)
            yield _chips_here(name, pool, asked[pool.family], found.chips if found else 0)
            yield from _other_chip(name, pool, found)
        yield from _surroundings(name, pool, machine)


def _chips_here(name: str, pool: PoolOptions, asked: int, there: int) -> Finding:
    value = f"{there} chips of family {pool.family} on this host"
    rule = f"{asked} are needed by this pool" + (" and those above it" if asked > pool.count else "")
    remedy = f"lower pools.{name}.count, add `emulate: {{}}`, or give a cluster's --address"
    return judged(f"pools.{name}", value, rule, remedy, error=there < asked)


def _other_chip(name: str, pool: PoolOptions, found: Detection | None) -> Iterator[Finding]:
    """Where a pool is planned with another data sheet than that of the chips here."""
    if pool.chip == AUTO or not (found and found.names):
        return
    with suppress(ChipError):
        if (chip := identify(pool.family, found.names)) != pool.chip:
            rule = f"the chips of this host are {chip}, by their name {' and '.join(found.names)}"
            yield Finding("warning", f"pools.{name}.chip", pool.chip, rule, f"name {chip}, or leave it out")


def _surroundings(name: str, pool: PoolOptions, machine: Machine) -> Iterator[Finding]:
    if pool.env.python is not None:
        key, python = f"pools.{name}.env.python", pool.env.python
        missing = shutil.which(os.path.expanduser(python)) is None
        yield judged(key, python, "a program of this host", "give one that exists here", error=missing)
    if pool.interface is not None:
        key, known = f"pools.{name}.interface", ", ".join(machine.interfaces)
        missing = pool.interface not in machine.interfaces
        yield judged(key, pool.interface, f"one of {known}", "name one of them", error=missing)


def _pools_there(job: Job, nodes: Sequence[Node]) -> Iterator[Finding]:
    fleet = fleet_of(job.pools, fleet_links(job), local=False)
    names = {node.id: node.name for node in nodes}
    try:
        found = place(asks_of(fleet), nodes)
    except PlacementError as error:
        yield Finding.of(error)
        return
    for pool in fleet.pools:
        hosts = [f"{host.id} on {names[found[host.id]]}" for host in fleet.hosts if host.pool is pool]
        yield Finding("ok", f"pools.{pool.name}", ", ".join(hosts), "has a place, once nobody else uses it")


def _data(job: Job, elsewhere: bool) -> Finding:
    """On a cluster a path that is not here may be there."""
    try:
        load_tokenizer(job.text().tokenizer)
        sources = [SourceFiles(source) for source in job.data.sources]
    except Exception as error:
        if not explains_itself(error):
            raise
        found = Finding.of(error)
        return Finding("warning" if elsewhere else "error", found.check, found.value, found.rule, found.remedy)
    note = "; ".join(filter(None, (files.note for files in sources)))
    named = ", ".join(source.source for source in job.data.sources)
    return Finding("ok", "data.source", named, "can be read" + (note and f"; {note}"))


def _storage(job: Job, run_dir: Path, nodes: Sequence[Node] | None) -> Iterator[Finding]:
    if job.checkpoint.every == 0:
        return
    if job.checkpoint.storage is not None and scheme_of(job.checkpoint.storage):
        yield _store(job.checkpoint.storage, elsewhere=nodes is not None)
        return
    value_bytes = ITEM_BYTES[job.train.precision]
    saved = sum(STATE_BYTES * unit.trained + value_bytes * unit.frozen for unit in workload(job).units)
    n_bytes = saved * _kept(job)
    if nodes is None or job.checkpoint.storage is not None:
        folder = Path(os.path.expanduser(job.checkpoint.storage or run_dir))
        yield storage(space(folder), n_bytes, elsewhere=nodes is not None)
    elif len(nodes) > 1:
        rule = f"hosts of {len(nodes)} nodes write there, so all of them must reach it"
        yield Finding("warning", "checkpoint.storage", "the run directory", rule, "name a folder that all hosts mount")


def _kept(job: Job) -> int:
    """How many checkpoints lie there at most, the one that is written included."""
    every = job.checkpoint.keep_every
    return job.checkpoint.keep + 1 + (job.train.steps // every if every else 0)


def _store(address: str, *, elsewhere: bool) -> Finding:
    try:
        StoreAddress(address).exists()
    except CheckpointError as error:
        found = Finding.of(error)
        return Finding("warning" if elsewhere else "error", found.check, found.value, found.rule, found.remedy)
    return Finding("ok", "checkpoint.storage", address, "can be reached; a run tries at its start to write there")


def storage(there: Space, n_bytes: int, *, elsewhere: bool) -> Finding:
    """What this host sees of a folder that may be another one on a cluster."""
    rule = f"can be written, and about {size_text(n_bytes)} of checkpoints fit"
    short = there.free_bytes < n_bytes
    value = f"{there.path}: {there.fault or f'{size_text(there.free_bytes)} free'}"
    remedy = "name another folder, or lower checkpoint.keep"
    wrong = bool(there.fault) or short
    return judged("checkpoint.storage", value, rule, remedy, error=wrong and not elsewhere, warning=wrong)


def _ports(job: Job) -> Iterator[Finding]:
    wanted = {"monitor.port": job.monitor.port, "monitor.prometheus_port": job.monitor.prometheus_port}
    for key, port in wanted.items():
        if isinstance(port, int):
            fault = listen_fault(LOOPBACK, port)
            remedy = "end what listens there, choose another, or `auto` for a free one"
            yield judged(key, f"{port}{fault and f': {fault}'}", "is free to listen on", remedy, error=bool(fault))

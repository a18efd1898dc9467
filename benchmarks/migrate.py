"""State that moves live from one vendor's chip to another's, against what the bridge between them carries.

    python -m benchmarks.migrate [--json] [--hidden N] [--layers N] [--rounds N]

Two emulated chips, not paced, of two pools on this machine, joined over zmq. In each round one of them has done a step,
holds the whole state (values, which are masters in float32, and two moments), and hands it to the other by
`session.configure`; the next round it comes back. That is done twice, with the median of the rounds each time:

- over a link that is paced to 4 Gbit/s, as a network has a rate of its own: `migrate_GB_per_s`, the state's bytes over
  the time that the slower of the two ranks takes, planning included; `bridge_GB_per_s`, what `session.probe` finds the
  link to carry; `migrate_GB_per_s_vs_bridge`, the first over the second; `pause_s`, from the call of `configure` until
  the new epoch is ready;
- over loopback as fast as it goes, which is as fast as the processor: the same with `loopback_` before, where the
  bridge's figure is that of its own benchmark, from rank to rank in messages of 16 MiB that lie in their slots already.
  Two ranks that copy and two endpoints that carry share this machine's cores there, which the second figure's do not.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from balancer.completion.completion import complete
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from benchmarks.bridge import race
from benchmarks.carriers import Zmq
from benchmarks.report import print_report
from benchmarks.usage import other_work
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.job import Job
from hetero.job.planning.problem import legal_tp, topology, workload
from hetero.job.run.spec import fleet_links, run_spec

ROOT = Path(__file__).parents[1]
NO_PACE = 1e-9
MESSAGE_BYTES, MESSAGES = 16 << 20, 48
GBIT_PER_S = 4.0
POOLS = {
    "n": {"family": "cuda", "chip": "A800-80G", "count": 1},
    "a": {"family": "ascend", "chip": "Ascend-910B2", "count": 1},
}


def job_of(hidden: int, layers: int, gbit_per_s: float | None = None) -> Job:
    local = {"env": {"vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}, "emulate": {}}
    sizes = {"layers": layers, "hidden": hidden, "ffn": 4 * hidden, "vocab": 257, "heads": 8, "kv_heads": 8}
    return Job.model_validate(
        {
            "model": {"dimensions": {"family": "llama", **sizes}},
            "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": 16},
            "train": {"steps": 100, "global_batch": 1, "precision": "float32", "replica_check_every": 0},
            "pools": {name: pool | local for name, pool in POOLS.items()},
            "bridge": {"transport": "zmq", "links": [{"between": ["n", "a"], "gbit_per_s": gbit_per_s}]},
        }
    )


@dataclass(frozen=True)
class Found:
    state_bytes: int
    move_s: float
    pause_s: float
    bridge_per_s: float

    @property
    def per_s(self) -> float:
        return self.state_bytes / self.move_s


def _plan(job: Job, pool: str, epoch: int) -> Plan:
    units = (0, len(workload(job).units))
    written = Plan(epoch=epoch, pipelines=(PipelinePlan(share=1, stages=(StagePlan(pool=pool, units=(units,)),)),))
    return complete(written, Problem(topology(job), workload(job), legal_tp=legal_tp(job)))


class Bench:
    """Two ranks between which the state goes back and forth."""

    def __init__(self, job: Job, session: Session, text: Prepared) -> None:
        self._job, self._session, self._text = job, session, text
        self._step = 0
        self._configure("initial")

    def move(self) -> tuple[int, float, float]:
        """Bytes of the state, seconds of its move, and of the whole pause."""
        answers, pause_s = self._configure("live")
        moved = [answer.moved for answer in answers]
        return sum(one.planned_bytes for one in moved), max(one.seconds for one in moved), pause_s

    def _configure(self, state: str) -> tuple[Sequence[Any], float]:
        """One step more, on the other chip. What the ranks answered, and after how long."""
        plan = _plan(self._job, ("n", "a")[self._step % 2], self._step)
        spec = run_spec(self._job, self._session.fleet, plan, self._text, NO_PACE)
        spec = spec.model_copy(update={"start": self._step, "state": state})
        began = perf_counter()
        answers = self._session.configure(spec)
        seconds = perf_counter() - began
        self._step += 1
        self._session.run(self._step)
        return answers, seconds


def measure(job: Job, rounds: int, paced: bool) -> list[Found]:
    with ExitStack() as stack:
        text = prepare(job.data, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        session = stack.enter_context(Session.start(fleet_of(job.pools, fleet_links(job)), LocalAgents()))
        carries = _probe(session) if paced else _race(stack)
        bench = Bench(job, session, text)
        return [Found(*bench.move(), carries()) for _ in range(rounds)]


def _probe(session: Session) -> Callable[[], float]:
    return lambda: max(row["bytes_per_s"] for row in session.probe())


def _race(stack: ExitStack) -> Callable[[], float]:
    (carrier,) = stack.enter_context(race((Zmq,), MESSAGE_BYTES)).carriers
    return lambda: MESSAGE_BYTES * MESSAGES / carrier.cross(MESSAGE_BYTES, MESSAGES)


def figures_of(found: Sequence[Found], prefix: str = "") -> dict[str, float]:
    return {
        f"{prefix}migrate_GB_per_s_vs_bridge": median(one.per_s / one.bridge_per_s for one in found),
        f"{prefix}pause_s": median(one.pause_s for one in found),
        f"{prefix}migrate_GB_per_s": median(one.per_s for one in found) / 1e9,
        f"{prefix}bridge_GB_per_s": median(one.bridge_per_s for one in found) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    void, size = other_work(), (options.hidden, options.layers)
    paced = measure(job_of(*size, GBIT_PER_S), options.rounds, paced=True)
    loopback = measure(job_of(*size), options.rounds, paced=False)
    figures = {"state_GB": paced[0].state_bytes / 1e9, **figures_of(paced), **figures_of(loopback, "loopback_")}
    print_report("migrate", figures, emulated=True, void=void, quiet=options.json)


if __name__ == "__main__":
    main()

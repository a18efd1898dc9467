"""State that moves live from one vendor's chip to another's, against what the bridge between them carries.

    python -m benchmarks.migrate [--json] [--hidden N] [--layers N] [--rounds N]

Two emulated chips, not paced, of two pools on this machine, joined over zmq. Each round one of them has done a step and
holds the whole state (values, which are masters in float32, and two moments), and hands it to the other by
`session.configure`; the next round it comes back.

- `migrate_GB_per_s`: the state's bytes over the time that the slower of the two ranks takes, planning included; median;
- `bridge_GB_per_s`: what one rank of the bridge's own benchmark sends another over zmq, in messages of 16 MiB that lie
  in their slots already, measured before each round; median;
- `migrate_GB_per_s_vs_bridge`: the first over the second, round by round; median;
- `state_GB`, and `pause_s`: from the call of `configure` until the new epoch is ready; median.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from balancer.completion import complete
from balancer.plan import PipelinePlan, Plan, StagePlan
from benchmarks.bridge import race
from benchmarks.carriers import Zmq
from benchmarks.report import print_report
from benchmarks.usage import other_work
from hetero.cluster.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import prepare
from hetero.job.job import Job
from hetero.job.planning import legal_tp, topology, workload
from hetero.job.spec import fleet_links, run_spec

ROOT = Path(__file__).parents[1]
NO_PACE = 1e-9
MESSAGE_BYTES, MESSAGES = 16 << 20, 48
POOLS = {
    "n": {"family": "cuda", "chip": "A800-80G", "count": 1},
    "a": {"family": "ascend", "chip": "Ascend-910B2", "count": 1},
}


def job_of(hidden: int, layers: int) -> Job:
    local = {"env": {"vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}, "emulate": {}}
    sizes = {"layers": layers, "hidden": hidden, "ffn": 4 * hidden, "vocab": 257, "heads": 8, "kv_heads": 8}
    return Job.model_validate(
        {
            "model": {"dimensions": {"family": "llama", **sizes}},
            "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": 16},
            "train": {"steps": 100, "global_batch": 1, "precision": "float32", "replica_check_every": 0},
            "pools": {name: pool | local for name, pool in POOLS.items()},
            "bridge": {"transport": "zmq"},
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
    units = (0, 2 * job.model.resolve().layers + 2)
    written = Plan(epoch=epoch, pipelines=(PipelinePlan(share=1, stages=(StagePlan(pool=pool, units=(units,)),)),))
    return complete(written, topology(job), workload(job), legal_tp(job))


def measure(job: Job, rounds: int) -> list[Found]:
    with tempfile.TemporaryDirectory() as folder:
        text, fleet = prepare(job.data, Path(folder)), fleet_of(job.pools, fleet_links(job))
        with Session.start(fleet, LocalAgents()) as session, race((Zmq,), MESSAGE_BYTES) as bridge:
            (carrier,) = bridge.carriers

            def configure(step: int, **facts: Any) -> Sequence[Any]:
                plan = _plan(job, ("n", "a")[step % 2], step)
                spec = run_spec(job, fleet, plan, text, NO_PACE).model_copy(update={"start": step, **facts})
                return session.configure(spec.model_dump(mode="json"))

            configure(0)
            session.run(1)
            found = []
            for step in range(1, rounds + 1):
                bridge_s = carrier.cross(MESSAGE_BYTES, MESSAGES)
                began = perf_counter()
                moved = [answer.moved for answer in configure(step, state="live")]
                pause_s = perf_counter() - began
                session.run(step + 1)
                nbytes = sum(one.planned_bytes for one in moved)
                move_s = max(one.seconds for one in moved)
                found.append(Found(nbytes, move_s, pause_s, MESSAGE_BYTES * MESSAGES / bridge_s))
    return found


def figures_of(found: Sequence[Found]) -> dict[str, float]:
    return {
        "migrate_GB_per_s_vs_bridge": median(one.per_s / one.bridge_per_s for one in found),
        "pause_s": median(one.pause_s for one in found),
        "migrate_GB_per_s": median(one.per_s for one in found) / 1e9,
        "bridge_GB_per_s": median(one.bridge_per_s for one in found) / 1e9,
        "state_GB": found[0].state_bytes / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    void = other_work()
    found = measure(job_of(options.hidden, options.layers), options.rounds)
    print_report("migrate", figures_of(found), emulated=True, void=void, quiet=options.json)


if __name__ == "__main__":
    main()

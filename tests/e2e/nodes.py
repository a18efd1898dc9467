"""A Ray cluster on this machine: `python -m tests.e2e.nodes FOLDER`, until its standard input ends.

Three nodes, each a raylet of its own: a plain head, and one for each of two families, with one chip that is but
counted: a GPU, which Ray knows, and an NPU, which it does not.
Prints two lines: the address of the job server, and that of the cluster.
"""

from __future__ import annotations

import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from tests.patience import WAIT_S

ATTEMPTS = 4
OBJECT_STORE_BYTES = 80 * 1024**2
FAMILIES: dict[str, dict[str, Any]] = {
    "cuda": {"num_gpus": 1},
    "ascend": {"resources": {"NPU": 1}},
}


def main(folder: Path) -> None:
    cluster = _patiently(folder)
    try:
        print(f"http://{cluster.webui_url}", cluster.address, sep="\n", flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


def _patiently(folder: Path) -> Cluster:
    """Ray gives a node 30 seconds to start, which is no setting of its; a busy machine needs longer now and then."""
    for _ in range(ATTEMPTS - 1):
        try:
            return _started(folder)
        except Exception:  # Ray's own word for it
            traceback.print_exc()
    return _started(folder)


def _started(folder: Path) -> Cluster:
    cluster = Cluster()
    common: dict[str, Any] = {"temp_dir": str(folder), "object_store_memory": OBJECT_STORE_BYTES, "num_cpus": 1}
    dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": _free_port()}
    dashboard["dashboard_agent_listen_port"] = _free_port()  # Ray's own choice is one that another Ray here may have
    try:
        cluster.add_node(**common, **dashboard, node_name="plain", labels={"family": "none"})
        for family, chips in FAMILIES.items():
            cluster.add_node(**common, **chips, node_name=family, labels={"family": family}, wait=False)
        cluster.wait_for_nodes(WAIT_S)
    except BaseException:
        cluster.shutdown()
        raise
    return cluster


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

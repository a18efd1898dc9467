"""How much of a long fat link the bridge fills: by one stream, and by several.

    python -m benchmarks.long_link --gbit 10 --ends NETNS=ADDRESS NETNS=ADDRESS [--streams 1 4 8 16] [--json]

The link is one that you have made: two network namespaces that reach each other by it. Messages of 64 MiB, two under
way; figures are medians over rounds, as a part of the link's rate.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from benchmarks.carriers import Bridge
from benchmarks.report import print_report
from benchmarks.usage import other_work

NBYTES, COUNT = 64 << 20, 8


def share(kind: type[Bridge], rate: float, rounds: int) -> float:
    """Median rate over the link's."""
    carrier = kind(NBYTES)
    carrier.cross(NBYTES, 2)
    seconds = median(carrier.cross(NBYTES, COUNT) for _ in range(rounds))
    carrier.close()
    return NBYTES * COUNT / seconds / rate


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    parser.add_argument("--gbit", type=float, required=True, help="rate of the link, in Gbit/s")
    parser.add_argument("--ends", nargs=2, required=True, metavar="NETNS=ADDRESS")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    void = other_work()
    ends = [end.partition("=") for end in options.ends]
    places = tuple((address, namespace) for namespace, _, address in ends)
    rate = options.gbit * 1e9 / 8
    figures = {}
    for scheme, sealed in (("zmq", False), ("zmq", True), ("grpc", False)):
        for streams in options.streams:
            facts = {"scheme": scheme, "sealed": sealed, "lanes": streams, "places": places}
            kind = type("LongLink", (Bridge,), facts)
            name = f"{scheme}{'_encrypted' if sealed else ''}_{streams}_streams"
            figures[name] = share(kind, rate, options.rounds)
    print_report("long_link", figures, emulated=False, void=void, quiet=options.json)


if __name__ == "__main__":
    main()

"""How much of a long fat link the bridge fills: by one stream, by several, and by as many as it finds itself.

    python -m benchmarks.long_link [--gbit 10] [--delay-ms 5] [--streams 1 8] [--json]
    python -m benchmarks.long_link --gbit 10 --ends NETNS=ADDRESS NETNS=ADDRESS

The link is between two network namespaces that benchmarks/wan.py makes, which takes root, or that you have made and
shaped yourself. Messages of 64 MiB, two under way; figures are medians over rounds, as a part of the link's rate.
`found` is how many streams `streams: auto` comes to. All processes, the link's own too, share the machine's cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.carriers import Bridge, Grpc, Place, Zmq, ZmqEncrypted
from benchmarks.report import print_report
from benchmarks.usage import other_work
from benchmarks.wan import Line, wan, why_not
from bridge.link.stream_count import find_streams
from bridge.words.endpoint import MOST_STREAMS

NBYTES, COUNT = 64 << 20, 8
KINDS = (Zmq, ZmqEncrypted, Grpc)


def measure(kind: type[Bridge], places: tuple[Place, Place], streams: Sequence[int], rounds: int) -> dict[str, float]:
    """Bytes per second over one transport with each number of streams, and how many are found to fill the link."""
    figures: dict[str, float] = {}
    for number in streams:
        carrier = type("LongLink", (kind,), {"streams": number, "places": places})(NBYTES)
        carrier.cross(NBYTES, 2)
        seconds = median(carrier.cross(NBYTES, COUNT, window=2) for _ in range(rounds))
        figures[f"{kind.name}_{number}_streams"] = NBYTES * COUNT / seconds
        carrier.close()
    carrier = type("LongLink", (kind,), {"places": places})(NBYTES)
    figures[f"{kind.name}_found"] = find_streams(carrier.probe)[0]
    carrier.close()
    return figures


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    parser.add_argument("--gbit", type=float, default=10.0, help="rate of the link, in Gbit/s")
    parser.add_argument("--delay-ms", type=float, default=5.0, help="of either way, where the link is made here")
    parser.add_argument("--ends", nargs=2, metavar="NETNS=ADDRESS", help="of a link that is there")
    parser.add_argument("--streams", type=int, nargs="+", choices=range(1, MOST_STREAMS + 1), default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if options.ends is None and (denied := why_not()):
        parser.error(f"no link can be made here ({denied}): run it as root, or give the --ends of one that is there")
    void, rate = other_work(), options.gbit * 1e9 / 8
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        if options.ends:
            (here, _, near), (there, _, far) = (end.partition("=") for end in options.ends)
            places: tuple[Place, Place] = (near, here), (far, there)
        else:
            places = stack.enter_context(wan(Line(rate, options.delay_ms / 1e3)))
        for kind in KINDS:
            figures |= measure(kind, places, options.streams, options.rounds)
    parts = {name: figure if name.endswith("_found") else figure / rate for name, figure in figures.items()}
    print_report("long_link", parts, emulated=False, void=void, quiet=options.json)


if __name__ == "__main__":
    main()

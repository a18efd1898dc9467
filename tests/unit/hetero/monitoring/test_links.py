from __future__ import annotations

import json

import pytest

from hetero.monitoring.links import merge_crossed, step_links
from hetero.monitoring.record import merge_hosts
from hetero.words.step import HostStep
from tests.unit.hetero.monitoring.reports import TOTALS, facts, merged, rank_report


def _hosts() -> list[HostStep]:
    b = merged([rank_report("b", 0, sent={"a": (10, 0.3)}, end=102.0)])
    return [merged([rank_report("a", 0, totals=TOTALS), rank_report("a", 1, received={"b": (5, 0.5)})]), b]


def test_bytes_add_up_and_the_longest_wait_counts() -> None:
    merged = merge_crossed([{"b": (10, 0.2), "c": (1, 0.0)}, {"b": (20, 0.1)}])
    assert merged == {"b": (30, 0.2), "c": (1, 0.0)}


def test_each_direction_is_a_link_of_its_own() -> None:
    assert merge_hosts(_hosts(), facts())["links"] == [
        {"source": "a", "target": "b", "bytes_sent": 20, "bytes_received": 20, "bytes_per_s": 10.0, "exposed_s": 0.06},
        {"source": "b", "target": "a", "bytes_sent": 10, "bytes_received": 10, "bytes_per_s": 5.0, "exposed_s": 0.5},
    ]


def test_links_sum_to_what_pools_send_and_receive() -> None:
    line = merge_hosts(_hosts(), facts())
    for name, pool in line["pools"].items():
        assert pool["bytes_sent"] == sum(link["bytes_sent"] for link in line["links"] if link["source"] == name)
        assert pool["bytes_received"] == sum(link["bytes_received"] for link in line["links"] if link["target"] == name)


def test_the_order_of_links_is_that_of_the_pools_whichever_host_is_heard_first() -> None:
    hosts = _hosts()
    assert step_links(hosts[::-1], ("a", "b"), 1.0) == step_links(hosts, ("a", "b"), 1.0)


def test_pools_that_exchange_nothing_have_no_link() -> None:
    alone = merged([rank_report("a", 0, totals=TOTALS, sent={}, received={})])
    assert merge_hosts([alone], facts())["links"] == []


@pytest.mark.parametrize("ranks", [1, 8, 64])
def test_a_hosts_report_grows_with_its_peers_alone(ranks: int) -> None:
    reports = [rank_report("a", index, sent={"b": (1 << 30, 0.1)}) for index in range(ranks)]
    assert len(json.dumps(merged(reports).sent)) < 40

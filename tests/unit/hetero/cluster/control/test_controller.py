"""The controller alone: its whole life, by events."""

from __future__ import annotations

import time

import pytest

from bridge.rank import RankId
from bridge.words.endpoint import Introduce, LinkProbed, PaceSpec, PeerSpec, ProbeLink
from hetero.cluster.control import events as ev
from hetero.cluster.control import instructions as ins
from hetero.cluster.control.controller import Phase
from hetero.cluster.errors import FingerprintMismatch
from hetero.monitoring.notice import Notice
from hetero.words.notices import ChipWaits
from hetero.words.orders import Calibrate, Configure, Configured, Hold, JoinWorld, Lease, OpenWorld, WorldOpened
from tests.unit.hetero.cluster.fake_hosts import FakeHosts, key_of
from tests.unit.hetero.cluster.fleets import big_fleet, three_families
from tests.unit.hetero.cluster.specs import CALIBRATION, epoch_spec


@pytest.fixture
def hosts() -> FakeHosts:
    return FakeHosts(three_families())


def of(kind: type, instructions: list[ins.Instruction]) -> list:
    return [one for one in instructions if isinstance(one, kind)]


def test_start_waits_for_every_host_before_it_links_any(hosts: FakeHosts) -> None:
    hosts.feed(ev.StartAsked())
    for host in hosts.fleet.hosts[:-1]:
        uris = {"zmq": f"zmq://{host.id}", "grpc": f"grpc://{host.id}"}
        assert not of(ins.ToHosts, hosts.feed(ev.HostReady(host.id, "here", "127.0.0.1", uris, key_of(host.id))))
    last = hosts.fleet.hosts[-1].id
    orders = of(
        ins.ToHosts, hosts.feed(ev.HostReady(last, "here", "127.0.0.1", {"zmq": f"zmq://{last}"}, key_of(last)))
    )

    worlds = {order.hosts: order.order for order in orders if isinstance(order.order, OpenWorld | JoinWorld)}
    assert {hosts: (type(world), world.pool.count) for hosts, world in worlds.items()} == {
        ("nvidia@0",): (JoinWorld, 2), ("ascend@0",): (OpenWorld, 4), ("kunlun@0",): (JoinWorld, 1),
    }  # fmt: skip
    introduced = {order.hosts[0]: order.order for order in orders if isinstance(order.order, Introduce)}
    assert introduced["nvidia@0"].peers["ascend@1"] == PeerSpec(
        "grpc://ascend@1", key_of("ascend@1"), sealed=True, pace=PaceSpec(1e9, 0.001)
    )
    assert introduced["kunlun@0"].peers["ascend@1"] == PeerSpec("zmq://ascend@1", key_of("ascend@1"), sealed=True)
    assert introduced["kunlun@0"].routes["ascend:3"] == "ascend@1"


def test_a_world_is_joined_by_all_hosts_of_its_pool_where_its_first_host_has_opened_it(hosts: FakeHosts) -> None:
    hosts.feed(ev.StartAsked())
    for host in hosts.fleet.hosts:
        hosts.feed(ev.HostReady(host.id, "here", "10.0.0.1", {}, key_of(host.id)))
    (order,) = hosts.feed(ev.Answered("ascend@0", [WorldOpened("10.0.0.1:99")]))
    assert order.hosts == ("ascend@0", "ascend@1")
    assert (order.order.pool.count, order.order.address) == (4, "10.0.0.1:99")
    assert order.order.secret == hosts.fleet.hosts[1].secret


def test_of_a_pools_chips_the_one_with_least_free_counts(hosts: FakeHosts) -> None:
    hosts.usable_bytes = {"ascend@0": 60, "ascend@1": 50, "nvidia@0": 70}
    hosts.ask(ev.StartAsked())
    assert hosts.controller.usable_bytes == {"ascend": 50, "nvidia": 70}


def test_whole_life(hosts: FakeHosts) -> None:
    assert set(hosts.ask(ev.StartAsked())["hosts"]) == {"nvidia@0", "ascend@0", "ascend@1", "kunlun@0"}
    assert len(hosts.ask(ev.OrderAsked(Calibrate(CALIBRATION)))) == 4
    assert len(hosts.ask(ev.ConfigureAsked(Configure(epoch_spec(0))))) == 4
    hosts.ask(ev.RunAsked(2))
    assert {lease.until for lease in hosts.leases.values()} == {2}
    for step in range(2):
        for host in hosts.leases:
            hosts.report(host, step)
    assert [one.step for one in of(ins.Deliver, hosts.told)] == [0, 1]
    assert of(ins.Done, hosts.told) == [ins.Done(2)]
    hosts.ask(ev.ConfigureAsked(Configure(epoch_spec(1, 2))))
    hosts.ask(ev.RunAsked(3))
    assert set(hosts.leases.values()) == {Lease(1, 3)}
    for host in hosts.leases:
        hosts.report(host, 2, epoch=1)
    hosts.ask(ev.StopAsked())
    assert hosts.controller.phase is Phase.ENDED
    assert hosts.controller.handle(ev.Tick(1e9)) == []


def test_a_held_epoch_ends_with_the_step_that_its_ranks_agree_on(hosts: FakeHosts) -> None:
    hosts.start(epoch=4)
    hosts.ask(ev.RunAsked(50))
    for host in hosts.leases:
        hosts.report(host, 0, epoch=4)
    hosts.ask(ev.HoldAsked())
    assert hosts.holds == {"nvidia@0": Hold(4)}, "its ranks tell all others"
    for host in hosts.leases:
        hosts.report(host, 1, epoch=4)
    assert not of(ins.Done, hosts.told)
    for host in hosts.leases:
        hosts.report(host, 2, epoch=4, held=host == "ascend@1")
    assert of(ins.Done, hosts.told) == [ins.Done(3)]
    assert set(hosts.leases.values()) == {Lease(4, 3)}, "nobody waits for more"
    with pytest.raises(RuntimeError, match="epoch 4 was held after step 2"):
        hosts.ask(ev.RunAsked(50))


def test_a_held_epoch_is_followed_by_another_that_goes_on_from_there(hosts: FakeHosts) -> None:
    hosts.start()
    hosts.ask(ev.RunAsked(50))
    for host in hosts.leases:
        hosts.report(host, 0, held=True)
    hosts.ask(ev.ConfigureAsked(Configure(epoch_spec(1, 1, state="live"))))
    hosts.ask(ev.RunAsked(2))
    for host in hosts.leases:
        hosts.report(host, 1, epoch=1)
    assert of(ins.Done, hosts.told) == [ins.Done(2)]


def test_nothing_is_held_where_nothing_runs(hosts: FakeHosts) -> None:
    hosts.start()
    hosts.ask(ev.HoldAsked())
    assert not hosts.holds


def test_reports_of_an_old_epoch_are_dropped_and_counted(hosts: FakeHosts) -> None:
    hosts.start(epoch=4)
    hosts.ask(ev.RunAsked(5))
    assert hosts.report("nvidia@0", 0, epoch=3) == []
    assert hosts.controller.stale_reports == 1


def test_an_epoch_only_grows(hosts: FakeHosts) -> None:
    hosts.start(epoch=4)
    (refusal,) = hosts.feed(ev.ConfigureAsked(Configure(epoch_spec(4))))
    assert refusal.error.key == "plan.epoch"
    hosts.ask(ev.ConfigureAsked(Configure(epoch_spec(5))))
    assert hosts.controller.phase is Phase.READY


@pytest.mark.parametrize(("before", "start"), [(None, 0), (0, 1)], ids=["no epoch before", "another step"])
def test_state_lives_only_where_ranks_hold_it(hosts: FakeHosts, before: int | None, start: int) -> None:
    hosts.ask(ev.StartAsked())
    if before is not None:
        hosts.ask(ev.ConfigureAsked(Configure(epoch_spec(before))))
    (refusal,) = hosts.feed(ev.ConfigureAsked(Configure(epoch_spec(1, start, state="live"))))
    assert refusal.error.key == "state"
    assert hosts.ask(ev.ConfigureAsked(Configure(epoch_spec(1)))) is not None
    assert hosts.ask(ev.ConfigureAsked(Configure(epoch_spec(2, state="live")))) is not None


def test_idle_hosts_get_no_lease_and_are_not_waited_for(hosts: FakeHosts) -> None:
    hosts.idle = {"kunlun@0"}
    hosts.start()
    hosts.ask(ev.RunAsked(1))
    assert set(hosts.leases) == {"nvidia@0", "ascend@0", "ascend@1"}
    for host in hosts.leases:
        hosts.report(host, 0)
    assert of(ins.Done, hosts.told)


def test_what_chips_say_of_themselves_is_a_warning_for_all_of_a_host(hosts: FakeHosts) -> None:
    hosts.ask(ev.StartAsked())
    hosts.feed(ev.ConfigureAsked(Configure(epoch_spec())))
    one, other = Configured(0, note="made by the host"), Configured(0)
    answers = {"nvidia@0": [one, one], "ascend@0": [other], "ascend@1": [other], "kunlun@0": [one, other]}
    told = [notice for host, said in answers.items() for notice in hosts.feed(ev.Answered(host, said))]
    warnings = [(notice.pool, notice.data["note"]) for notice in of(Notice, told) if notice.kind == "warning"]
    assert warnings == [(pool, f"chips of host {pool}@0: made by the host") for pool in ("nvidia", "kunlun")]


def test_hosts_that_read_different_text_are_named_and_the_session_goes_on(hosts: FakeHosts) -> None:
    hosts.ask(ev.StartAsked())
    hosts.fingerprints = {"nvidia@0": "aaa", "kunlun@0": "bbb"}
    hosts.ask(ev.ConfigureAsked(Configure(epoch_spec(0))))
    (refusal,) = of(ins.Refuse, hosts.told)
    assert isinstance(refusal.error, FingerprintMismatch)
    for word in ("nvidia@0", "node of kunlun@0", "aaa", "bbb", "text.bin"):
        assert word in str(refusal.error)
    hosts.fingerprints = {}
    assert hosts.ask(ev.ConfigureAsked(Configure(epoch_spec(1)))) is not None


def test_a_checkpoint_is_told_once_it_is_whole_and_the_run_waits_for_it(hosts: FakeHosts) -> None:
    hosts.start(save_every=1)
    hosts.ask(ev.RunAsked(1))
    names = list(hosts.leases)
    for host in names[:-1]:
        assert hosts.feed(ev.PiecesSaved(host, 1, [{"of": host}])) == []
    for host in names:
        hosts.report(host, 0)
    assert not of(ins.Done, hosts.told)
    notice, answer = hosts.feed(ev.PiecesSaved(names[-1], 1, []))
    assert (notice.step, notice.pieces) == (1, [{"of": host} for host in names[:-1]])
    assert answer == ins.Done(1)


def test_a_run_is_not_over_before_the_pieces_of_its_last_checkpoint_begin_to_come(hosts: FakeHosts) -> None:
    hosts.start(save_every=2)
    hosts.ask(ev.RunAsked(3))
    names = list(hosts.leases)
    for step in range(3):
        for host in names:
            hosts.report(host, step)
    assert not of(ins.Done, hosts.told)
    assert [hosts.feed(ev.PiecesSaved(host, 2, [])) for host in names[:-1]] == [[], [], []]
    written, answer = hosts.feed(ev.PiecesSaved(names[-1], 2, []))
    assert (written.step, answer) == (2, ins.Done(3))


def test_a_checkpoint_whose_pieces_are_all_there_is_told_behind_the_step_that_it_follows(hosts: FakeHosts) -> None:
    hosts.start(save_every=1)
    hosts.ask(ev.RunAsked(2))
    names = list(hosts.leases)
    for host in names:
        assert hosts.feed(ev.PiecesSaved(host, 1, [])) == []
    told = [one for host in names for one in hosts.report(host, 0)]
    assert [type(one) for one in told] == [ins.Deliver, ins.CheckpointWritten]
    for host in names[1:]:
        hosts.report(host, 1)
        hosts.feed(ev.PiecesSaved(host, 2, []))
    hosts.feed(ev.PiecesSaved(names[0], 2, []))
    assert [type(one) for one in hosts.report(names[0], 1)] == [ins.Deliver, ins.CheckpointWritten, ins.Done]


def test_what_a_rank_tells_becomes_news_under_its_own_name(hosts: FakeHosts) -> None:
    waits = ChipWaits("world", 3, (2,), 31.0)
    data = {"group": "world", "chip": 3, "waits_for": (2,), "seconds": 31.0}
    told = ev.RankNoticed("ascend@1", RankId("ascend", 3), waits, 7, 0)
    assert hosts.feed(told) == [Notice("chip_waits", data, 7, 0, "ascend", "ascend:3")]


def test_leases_are_renewed_ahead_of_need(hosts: FakeHosts) -> None:
    hosts.start()
    hosts.ask(ev.RunAsked(1000))
    ahead = hosts.controller.options.ahead
    for step in range(200):
        assert all(step < lease.until <= step + 1 + ahead for lease in hosts.leases.values())
        for host in hosts.leases:
            hosts.report(host, step)
    assert hosts.orders[Lease] <= len(hosts.leases) * (1 + 200 / (ahead / 2))


DEATH = ev.Trouble("ascend@1", "rank", ev.Severity.DIED, "was killed by SIGKILL", RankId("ascend", 3))
WAKE = ev.Trouble("nvidia@0", "rank", ev.Severity.IN_THE_WAKE, "failed: PeerLost", RankId("nvidia", 0))
ABORT = ev.Trouble("ascend@0", "rank", ev.Severity.ABORTED, "was killed by SIGABRT", RankId("ascend", 0))
OWN = ev.Trouble("kunlun@0", "rank", ev.Severity.OWN_ERROR, "failed: ValueError", RankId("kunlun", 0))


def test_a_death_is_judged_at_once_and_blames_what_came_before_it(hosts: FakeHosts) -> None:
    hosts.start()
    assert hosts.feed(WAKE) == []
    notice, fail = hosts.feed(DEATH)
    assert fail == ins.Fail(DEATH, (WAKE,))
    assert (notice.kind, notice.pool, notice.rank) == ("failed", "ascend", "ascend:3")
    assert hosts.controller.phase is Phase.ENDED


@pytest.mark.parametrize("order", [(WAKE, ABORT, OWN), (OWN, WAKE, ABORT), (ABORT, OWN, WAKE)])
def test_an_own_error_wins_over_its_wake_whatever_arrives_first(hosts: FakeHosts, order: tuple) -> None:
    hosts.start()
    hosts.feed(ev.Tick(100.0))
    for trouble in order:
        assert hosts.feed(trouble) == []
    assert hosts.feed(ev.Tick(100.5)) == []
    assert of(ins.Fail, hosts.feed(ev.Tick(102.0)))[0].root is OWN


def test_of_the_silent_the_one_furthest_behind_is_blamed(hosts: FakeHosts) -> None:
    hosts.start()
    troubles = [
        ev.Trouble("ascend@0", "rank", ev.Severity.SILENT, "silent", RankId("ascend", index), progress=step)
        for index, step in ((0, 7), (1, 6), (2, 7))
    ]
    for trouble in troubles:
        hosts.feed(trouble)
    assert of(ins.Fail, hosts.feed(ev.Tick(10.0)))[0].root is troubles[1]


def test_a_host_that_answers_what_nobody_asked_is_blamed(hosts: FakeHosts) -> None:
    hosts.start()
    hosts.feed(ev.Answered("ascend@0", [LinkProbed("kunlun@0", 5.0, None, 1.0)]))
    root = of(ins.Fail, hosts.feed(ev.Tick(10.0)))[0].root
    assert (root.host, root.process, root.cause) == ("ascend@0", "agent", "said LinkProbed unasked")


def test_ranks_that_lose_each_other_while_all_stop_are_no_trouble(hosts: FakeHosts) -> None:
    hosts.start()
    hosts.feed(ev.StopAsked())
    assert hosts.feed(WAKE) == []
    assert hosts.feed(ev.Tick(1e6)) == []


@pytest.mark.parametrize("chips_per_host", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_a_thousand_hosts_cost_less_than_10_ms_a_step(chips_per_host: int) -> None:
    hosts = FakeHosts(big_fleet(1000, chips_per_host))
    hosts.start()
    steps, names = 100, [host.id for host in hosts.fleet.hosts]
    hosts.ask(ev.RunAsked(steps))
    began = time.process_time()
    for step in range(steps):
        for host in names:
            hosts.report(host, step)
    assert (time.process_time() - began) / steps < 0.010
    assert hosts.heard[ev.StepReported] == steps * 1000
    assert hosts.orders[Lease] <= 1000 * (1 + steps / 8)  # whatever the number of chips


def test_hosts_of_one_machine_share_memory_and_hide_nothing_from_each_other(hosts: FakeHosts) -> None:
    hosts.feed(ev.StartAsked())
    orders = []
    for host in hosts.fleet.hosts:
        uris = {scheme: f"{scheme}://{host.id}" for scheme in host.schemes}
        machine = "other" if host.id == "kunlun@0" else "this"
        orders = of(
            ins.ToHosts, hosts.feed(ev.HostReady(host.id, "here", "127.0.0.1", uris, key_of(host.id), machine=machine))
        )
    introduced = {order.hosts[0]: order.order for order in orders if isinstance(order.order, Introduce)}
    assert introduced["ascend@0"].peers["ascend@1"] == PeerSpec("shm://ascend@1", key_of("ascend@1"), sealed=False)
    assert introduced["ascend@0"].peers["kunlun@0"] == PeerSpec("zmq://kunlun@0", key_of("kunlun@0"), sealed=True)
    assert introduced["nvidia@0"].peers["ascend@1"].uri == "grpc://ascend@1"


def test_strangers_and_the_choice_of_links_are_told(hosts: FakeHosts) -> None:
    hosts.ask(ev.StartAsked())
    links = [notice.data for notice in of(Notice, hosts.told) if notice.kind == "link"]
    assert {"between": ["nvidia", "ascend"], "scheme": "grpc", "sealed": True, "streams": 1} in links
    assert len(links) == 3
    told = of(Notice, hosts.feed(ev.StrangerRefused("kunlun@0", {"from": "x", "cause": "y", "count": 3})))
    assert [(notice.kind, notice.pool, notice.data["count"]) for notice in told] == [("stranger_refused", "kunlun", 3)]


def test_a_link_is_measured_by_the_host_at_its_one_end(hosts: FakeHosts) -> None:
    hosts.ask(ev.StartAsked())
    [order] = of(ins.ToHosts, hosts.feed(ev.OrderAsked(ProbeLink("kunlun@0", 1000), ["nvidia@0"])))
    assert (order.hosts, order.order) == (["nvidia@0"], ProbeLink("kunlun@0", 1000))
    assert hosts.controller.phase is Phase.ASKING
    found = LinkProbed("kunlun@0", 5.0, None, 1.0)
    [answer] = of(ins.Done, hosts.feed(ev.Answered("nvidia@0", [found])))
    assert answer.value == [found]
    assert hosts.controller.phase is Phase.READY

"""What a chip is counted to hold beside weights and activations. Units are `cases.unit`: a million parameters each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.completion.completion import complete
from balancer.cost.workload import Update
from balancer.errors import PlanError
from balancer.memory.communicators import communicator_bytes
from balancer.memory.memory import SLACK, saved_bytes, stage_bytes
from balancer.memory.sync_memory import sync_memory
from balancer.plan.plan import Plan
from balancer.problem import Problem
from tests.unit.balancer.cases import plan, pool, topology, unit, workload

MILLION = 1_000_000


def test_gradients_in_rounds_lie_there_from_last_backwards_until_they_are_summed() -> None:
    """Four pipelines in one pool: a chip sends what three others sum, and takes as much for what it sums itself."""
    chips, work = topology(pool("a", 4)), workload(8, batch=4)
    four = complete(plan(*[(1, [("a", 1, (0, 8))])] * 4), Problem(chips, work))
    for p in range(4):
        found = sync_memory(work, four, (p, 0), 4)
        assert sum(found.rounds.values()) == 4 * (6 + 2 * 3) * MILLION
        assert found.summed == 4 * 2 * MILLION
        assert found.summing >= sum(found.rounds.values())
        assert found.returning == 4 * (2 * 3 + 6) * MILLION, "all at once, while the next step begins"


def test_a_tied_weight_returns_with_its_first_use_beside_what_else_is_first_used_there() -> None:
    chips, work = topology(pool("a", 4)), replace(workload(8, batch=2), tied=((0, 7),))
    two = complete(plan(*[(1, [("a", 1, (0, 4)), ("a", 1, (4, 8))])] * 2), Problem(chips, work))
    for place, _ in two.stages():
        found = sync_memory(work, two, place, 4)
        assert found.back.keys() == set(range(place[1] * 4, place[1] * 4 + 4))
        assert found.returning == sum(found.back.values()) >= 4 * 4 * MILLION
    assert found.back[7] > found.back[6] > 0


def test_what_comes_over_a_bridge_lies_in_host_memory() -> None:
    chips, work = topology(pool("a", 1), pool("b", 1)), workload(8, batch=2)
    two = complete(plan((1, [("a", 1, (0, 8))]), (1, [("b", 1, (0, 8))])), Problem(chips, work))
    found = sync_memory(work, two, (0, 0), 4)
    assert (sum(found.rounds.values()), found.returning) == (0, 0)
    assert found.summed == 4 * 4 * MILLION
    assert found.summing == 4 * 5 * MILLION, "and the unit that is being added"


def test_communicators_count_by_what_the_family_takes_for_one() -> None:
    chips, work = topology(pool("a", 12)), workload(8, batch=12)
    chip = replace(chips.pools[0].chip, communicator_bytes=400, pair_communicator_bytes=40, exchange_peer_bytes=5)

    def bytes_(*pipelines: tuple[int, list[tuple[str, int, tuple[int, int]]]]) -> int:
        return communicator_bytes(work, complete(plan(*pipelines), Problem(chips, work)), (0, 0), chip)

    assert bytes_((12, [("a", 1, (0, 8))])) == 0
    assert bytes_((12, [("a", 2, (0, 8))])) == 400
    assert bytes_((12, [("a", 1, (0, 4)), ("a", 1, (4, 8))])) == 2 * 40
    assert bytes_((6, [("a", 1, (0, 8))]), (6, [("a", 1, (0, 8))])) == 400 + 5
    assert bytes_((6, [("a", 2, (0, 8))]), (6, [("a", 2, (0, 8))])) == 2 * 400 + 3 * 5

    many = bytes_(*[(1, [("a", 1, (0, 8))]) for _ in range(12)])
    assert many == 400 + 7 * 5 + 4 * 40, "beyond a host's chips buffers are as between two"


def test_rows_of_the_stream_are_held_by_one_chip_each() -> None:
    """Of what a norm keeps, half is left at tp 2, and of a boundary and its gradient; not of what products read."""
    kept, whole, gathered = 8 * MILLION, 6 * MILLION, 2 * MILLION
    one = replace(unit(kept=kept, boundary=MILLION), whole_bytes=whole, gathered_bytes=gathered)
    chips, work = topology(pool("a", 2)), workload([one] * 4, batch=1)
    written = plan((1, [("a", 2, (0, 4))]))
    rows = Plan.model_validate_json(written.to_json().replace('"tp": 2', '"tp": 2, "sequence_parallel": true'))
    needs = [stage_bytes(work, complete(p, Problem(chips, work)), 0, 0, "float32") for p in (written, rows)]
    assert needs[0].activations - needs[1].activations == 4 * (whole - gathered) // 2 + 2 * MILLION // 2
    assert one.kept_bytes(2, 2) == gathered + (whole - gathered) / 2 + (kept - whole) / 2


def test_slack_and_communicators_count_against_the_limit() -> None:
    written, work = plan((2, [("a", 1, (0, 4)), ("a", 1, (4, 8))])), workload(8, batch=2)
    chips = topology(pool("a", 2))
    need = stage_bytes(work, complete(written, Problem(chips, work)), 0, 0, "float32")
    assert need.total == need.tensors + round(SLACK * need.tensors)
    tight = replace(chips.pools[0], memory_bytes=need.total)
    complete(written, Problem(topology(tight), work))
    greedy = replace(tight, chip=replace(tight.chip, pair_communicator_bytes=1))
    with pytest.raises(PlanError, match="communicators"):
        complete(written, Problem(topology(greedy), work))


def test_a_hub_puts_together_what_comes_in_parts_from_a_larger_tp() -> None:
    """Two copies of one pool, of tp 2 and 1, each the hub of one of two units."""
    chips, work = topology(pool("a", 3)), workload(2, batch=2)
    mixed = complete(plan((1, [("a", 2, (0, 2))]), (1, [("a", 1, (0, 2))])), Problem(chips, work))
    owned = {place: stage.owned_units() for place, stage in mixed.stages()}
    assert sorted(map(len, owned.values())) == [1, 1]
    at_one, at_two = (sync_memory(work, mixed, (p, 0), 4, 1 << 30) for p in (1, 0))
    assert at_one.summing == 4 * (1 + 1 + 1) * MILLION, (
        "what is taken, put together, and the sum; what was sent is gone"
    )
    assert at_two.summing == 4 * (0.5 + 0.5) * MILLION


def test_what_a_round_has_sent_is_gone_before_its_sums_are_made() -> None:
    """Two copies: each sends what the other sums, and takes as much, in one round."""
    chips, work = topology(pool("a", 2)), workload(2, batch=2)
    two = complete(plan(*[(1, [("a", 1, (0, 2))])] * 2), Problem(chips, work))
    found = sync_memory(work, two, (0, 0), 4, 1 << 30)
    assert (found.rounds, found.summing) == ({0: 4 * 2 * MILLION}, 4 * 2 * MILLION)


@pytest.mark.parametrize(("update", "bytes_"), [(Update(), 8), (Update(moments=1), 4), (Update(moments=0), 0)])
def test_an_owner_has_the_moments_of_its_rule_and_a_master_of_what_is_narrow(update: Update, bytes_: int) -> None:
    work = replace(workload(8, batch=2), update=update)
    one = complete(plan((2, [("a", 1, (0, 8))])), Problem(topology(pool("a", 1)), work))
    for precision, master in (("float32", 0), ("bfloat16", 4)):
        assert stage_bytes(work, one, 0, 0, precision).optimizer == 8 * MILLION * (bytes_ + master)


def test_an_update_that_is_not_fused_has_temporaries() -> None:
    """They matter where a chip is fullest after it has computed: nothing is kept for backwards here."""
    work, chips = workload(8, batch=1, kept=0, boundary=0), topology(pool("a", 1))
    one = complete(plan((1, [("a", 1, (0, 8))])), Problem(chips, work))
    fused, other = (replace(chips.pools[0].chip, family=family) for family in ("cuda", "kunlun"))
    needs = [stage_bytes(work, one, 0, 0, "bfloat16", chip) for chip in (fused, other)]
    assert [need.sync for need in needs] == [0, 4 * 8 * MILLION]


@pytest.mark.parametrize(("precision", "value"), [("float32", 0), ("bfloat16", 2)])
def test_an_optimizer_in_host_memory_takes_no_room_on_the_chip(precision: str, value: int) -> None:
    """But on its host, for master, gradient, moments, and what goes back where that is not the master."""
    work, chips = workload(8, batch=2), topology(pool("a", 1))
    (pipeline,) = plan((2, [("a", 1, (0, 8))])).pipelines
    stage = pipeline.stages[0].model_copy(update={"optimizer": "host"})
    hosted = pipeline.model_copy(update={"stages": (stage,)})
    here, there = (
        stage_bytes(work, complete(Plan(pipelines=(one,)), Problem(chips, work)), 0, 0, precision)
        for one in (pipeline, hosted)
    )
    assert (there.optimizer, there.host) == (0, 8 * MILLION * (4 * (2 + 2) + value))
    assert here.host == 0
    assert here.tensors - there.tensors == here.optimizer + here.sync - there.sync
    assert "MiB of its host's" in str(there)
    assert "host" not in str(here)


@pytest.mark.parametrize(("precision", "products", "waits"), [
    ("float32", 1.0, False), ("float32", 0.0, True), ("bfloat16", 1.0, True), ("bfloat16", 0.0, True),
])  # fmt: skip
def test_gradients_of_products_wait_only_where_their_sums_are_wider(
    precision: str, products: float, waits: bool
) -> None:
    """In float32 a product is added to its sum as it is made; what autograd makes is added when it is whole."""
    small = replace(unit(), weight_flops=products)
    large = replace(small, largest_tensor=100 * MILLION)
    chips, found = topology(pool("a", 1, precision=precision)), []
    for one in (small, large):
        work = workload([one] * 4, batch=2)
        alone = complete(plan((2, [("a", 1, (0, 4))])), Problem(chips, work))
        found.append(stage_bytes(work, alone, 0, 0, precision).total)
    assert (found[1] > found[0]) == waits


@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("bfloat16", 2)])
def test_a_mask_is_kept_once_for_a_chunk_and_micro_batch_in_flight(precision: str, size: int) -> None:
    """Whatever tp is; and every stage has positions."""
    chips, work = topology(pool("a", 6)), workload(8, batch=4)
    masked = {name: tuple(replace(u, masks={"mask": MILLION * bytes_}, plain_masks={}) for u in work.units)
              for name, bytes_ in (("float32", 4), ("bfloat16", 2))}  # fmt: skip
    work = replace(work, units=masked["float32"], by_precision=masked)
    three = complete(plan((4, [("a", 2, (0, 2)), ("a", 2, (2, 5)), ("a", 2, (5, 8))])), Problem(chips, work))
    for stage, in_flight in ((0, 3), (1, 2), (2, 1)):
        plain, packed = (
            stage_bytes(replace(work, packed=packs), three, 0, stage, precision) for packs in (False, True)
        )
        assert packed.activations - plain.activations == in_flight * size * MILLION
        text = 8 if stage in (0, 2) else 24
        assert packed.messages - plain.messages == text * 4 * work.seq_len


def test_of_frozen_weights_a_checkpoint_has_neither_masters_nor_moments() -> None:
    chips = topology(pool("a", 1))
    work = replace(workload(2, batch=2), units=(replace(unit(), frozen=MILLION), replace(unit(), frozen=MILLION // 4)))
    one = complete(plan((2, [("a", 1, (0, 2))])), Problem(chips, work))
    assert saved_bytes(work, one, 0, 0) == (3 * 4 * 3 + 5 * 4) * MILLION // 4


def test_a_mask_of_windows_is_kept_once_for_a_stage_whatever_is_in_flight_and_whichever_kinds_read_it() -> None:
    chips, work = topology(pool("a", 6)), workload(8, batch=4)
    names = ["near", "near", "near", "far", "near", "near", "near", "near"]
    units = tuple(replace(u, kind=f"{u.kind} {n}", plain_masks={name: MILLION}) for n, (u, name) in
                  enumerate(zip(work.units, names, strict=True)))  # fmt: skip
    three = complete(plan((4, [("a", 2, (0, 2)), ("a", 2, (2, 5)), ("a", 2, (5, 8))])), Problem(chips, work))
    for stage, masks in ((0, 1), (1, 2), (2, 1)):
        bare, masked = (stage_bytes(replace(work, units=u), three, 0, stage, "float32") for u in (work.units, units))
        assert masked.tensors - bare.tensors == masks * MILLION

"""What units are made of, timed on this machine and on a chip that is emulated."""

from __future__ import annotations

import pytest

from backends.chip import load_chip
from backends.cpu import CpuBackend
from backends.emulation import Emulated
from backends.options import EmulateOptions
from backends.registry import load_backend
from balancer.cost.times import UPDATE_BYTES
from bridge.rank import RankId
from hetero.engine import calibration, rates
from hetero.engine.rates import measure_rates
from hetero.engine.world import World
from hetero.models.dimensions import Dimensions
from hetero.words.orders import Rate
from hetero.words.pool import Pool
from hetero.words.spec import CalibrationSpec

TINY = Dimensions(layers=1, hidden=16, heads=2, kv_heads=2, ffn=32, vocab=50)


def _rates(pool: Pool, backend: CpuBackend, time_scale: float = 1.0) -> dict[str, Rate]:
    spec = CalibrationSpec(
        model=TINY,
        pools={"a": pool},
        tensor_parallel={"a": (1,)},
        seq_len=8,
        micro_batch=2,
        precisions={"a": "float32"},
        repeats=5,
        time_scale=time_scale,
    )
    return {rate.part: rate for rate in measure_rates(spec, World(backend, RankId("a", 0), 1))}


@pytest.fixture(autouse=True)
def _alone_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration.dist, "all_reduce", lambda _: None)
    monkeypatch.setattr(rates, "_COPIED_BYTES", 1 << 16)
    monkeypatch.setattr(rates, "_UPDATED", 1 << 12)


def test_a_real_chip_and_its_host_are_timed_by_the_model_s_own_products() -> None:
    found = _rates(Pool("a", "cpu", "cpu", 1), CpuBackend())
    assert found.keys() == {"memory", "update", "to_host", "from_host", "host_update", "products"}
    assert all(rate.per_s > 0 and rate.repeats == 5 for rate in found.values())
    tokens, inputs, outputs = found["products"].shape
    assert (tokens, {inputs, outputs} <= {16, 32, 48, 50}) == (64, True)


def test_an_emulated_chip_tells_its_hidden_speed_and_nothing_of_this_machine() -> None:
    hidden = EmulateOptions(speed=0.5)
    chip = load_chip("A800-80G")
    backend = Emulated(load_backend("cuda"), chip, hidden)
    scale = 0.02 * chip.memory_bytes_per_s / 2e4  # so that the copy of 10 kB, and as much of an update, takes 20 ms
    found = _rates(Pool("a", "cuda", "A800-80G", 1, emulate=EmulateOptions()), backend, scale)
    assert found.keys() <= {"memory", "update", "products"}
    assert found["memory"].per_s == pytest.approx(chip.memory_bytes_per_s / 2)
    assert found["update"].per_s == pytest.approx(chip.memory_bytes_per_s / UPDATE_BYTES / 2)

"""What `benchmarks.mfu` measures by: a chip's peak, or an error that says how to give it one."""

from __future__ import annotations

import pytest

from backends.errors import ChipError
from backends.probe import Detection
from benchmarks import mfu
from hetero.models.registry import architecture


def _here(monkeypatch: pytest.MonkeyPatch, *found: Detection) -> None:
    monkeypatch.setattr(mfu, "detect", lambda: [*found, Detection("cpu", 2, ())])


def test_the_sheet_that_bears_the_chip_s_name_has_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    _here(monkeypatch, Detection("cuda", 1, (), names=("NVIDIA H200",)))
    one, eight = mfu.settings(["1b", "8b"], None, None, {})
    assert (one.chip, one.peak_flops, one.seq_len, one.job.train.precision) == ("H200", 989e12, 4096, "bfloat16")
    assert one.cut == eight.cut == {}
    assert [cut.cut for cut in mfu.settings(["1b", "8b"], None, 20, {})] == [{}, {"layers": 20}]


@pytest.mark.parametrize(("names", "chip"), [(("NVIDIA Unheard-of",), None), (("GPU",), "Ascend-910B2")])
def test_a_chip_whose_peak_nobody_knows_is_refused(
    names: tuple[str, ...], chip: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _here(monkeypatch, Detection("cuda", 1, (), names=names))
    with pytest.raises(ChipError) as refused:
        mfu.settings(["1b"], chip, None, {})
    assert refused.value.key == "--chip"
    monkeypatch.setattr("sys.argv", ["mfu"])
    if chip is None:
        assert "peak_tflops" in refused.value.remedy
        with pytest.raises(SystemExit) as ended:
            mfu.main()
        assert ended.value.code == 2


def test_parameters_are_those_of_their_names() -> None:
    sizes = {name: architecture(dims).parameter_count / 1e9 for name, dims in mfu.MODELS.items()}
    assert sizes == pytest.approx({"1b": 1.24, "3b": 3.21, "8b": 8.03}, abs=0.01)

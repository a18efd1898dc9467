"""Mistakes that the job file alone shows: `hetero plan` refuses them, without a process being started.

What else must be refused is in these places:

    unknown key, wrong type, chips that cannot form the tp, units that overlap    here
      or leave a gap, a pool in no stage, shares that do not sum, unknown chip
      or transport, a stage that does not fit the chip's memory
    missing data path, empty text, a sequence longer than the data, a port        test_before_a_run.py
      taken, a Ray address that does not answer, storage that one host cannot
      write, data that differs between hosts, a run directory that holds a run,
      a stage that does not fit the memory which its chip really has, trackers,
      a text too short to hold so much out
    a disk that is full in mid-run                                                 test_full_disk.py
    a misspelt name at every level of the job file                           tests/unit/hetero/job/file/test_load.py
    every rule of a plan by hand                                                   tests/unit/balancer/test_complete.py
    a cluster that has no place for a pool, a wrong token, names                   tests/e2e/test_cluster.py
      of jobs
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.cli.app import run
from tests.e2e.bad_input.screens import JOB, refused, spoilt

NVIDIA, ASCEND = "{pool: nvidia, tp: 2, units: [0, 2]}", "{pool: ascend, tp: 1, units: [2, 6]}"
STAGE = "balance.pipelines[0].stages[1]"
UNITS = f"{STAGE}.units"
MODEL = JOB.splitlines()[0]

CASES = {
    "unknown-key": ("steps: 4", "stpes: 4", "train.stpes", "is not a known key", "did you mean 'steps'"),
    "unknown-section": ("bridge:", "brigde:", "brigde", "is not a known key", "did you mean 'bridge'"),
    "wrong-type": ("steps: 4", "steps: many", "train.steps", "many", "valid integer"),
    "wrong-type-section": ("optimizer: {lr: 1.0e-3}", "optimizer: 3", "train.optimizer", "a section of keys"),
    "wrong-type-null": ("count: 2, tp: 2", "count: null, tp: 2", "pools.nvidia.count", "null (nothing)"),
    "wrong-type-bool": ("steps: 4", "steps: true", "train.steps", "true", "should be a number"),
    "tp-beyond-the-chips": ("count: 2, tp: 2", "count: 2, tp: 4", "pools.nvidia.tp", "at most 2"),
    "tp-that-the-heads-forbid": ("count: 2, tp: 2", "count: 3, tp: 3", "pools.nvidia.tp", "4 heads", "1 or 2, or to"),
    "tp-of-a-stage": (NVIDIA, NVIDIA.replace("tp: 2", "tp: 1"), "balance.pipelines[0].stages[0].tp", "use tp 2"),
    "tp-neither-auto-nor-count": ("count: 2, tp: 2", "count: 2, tp: 0", "pools.nvidia.tp", "'auto' or greater than 0"),
    "network-of-emulated": (
        "count: 2, tp: 2", "count: 2, tp: 2, network_gbit_per_s: 100", "pools.nvidia.network_gbit_per_s",
        "emulated ones are all this machine", "leave it out",
    ),
    "units-overlap": (ASCEND, ASCEND.replace("[2", "[1"), UNITS, "in two stages"),
    "units-leave-a-gap": (ASCEND, ASCEND.replace("[2", "[3"), UNITS, "unit 2 is in no"),
    "units-end-early": (ASCEND, ASCEND.replace("6]", "5]"), UNITS, "end at 6"),
    "units-none": (ASCEND, ASCEND.replace("[2, 6]", "[]"), UNITS, "at least one chunk"),
    "units-half": (ASCEND, ASCEND.replace("[2, 6]", "[2]"), f"{UNITS}[0]", "too few items"),
    "shares": ("share: 4", "share: 3", "balance.pipelines.share", "global batch of 4, not 3", "1 more"),
    "unknown-pool": ("pool: ascend", "pool: ascent", "balance.pipelines[0].stages[1].pool", "did you mean 'ascend'"),
    "unknown-chip": ("A800-80G", "A800-80", "pools.nvidia.chip", "no such chip", "Did you mean A800-80G"),
    "unknown-family": ("family: cuda", "family: cude", "pools.nvidia.family", "did you mean 'cuda'"),
    "unknown-transport": ("transport: grpc", "transport: grcp", "bridge.links[0].transport", "did you mean 'grpc'"),
    "unknown-preset": (MODEL, "model: {preset: lama-7b}", "model.preset", "did you mean llama-7b"),
    "unknown-model-family": ("layers: 2", "family: lama, layers: 2", "model.dimensions.family", "did you mean llama"),
    "negative": ("steps: 4", "steps: -3", "train.steps", "-3", "greater than 0"),
    "nan": ("time_scale: 1.0", "time_scale: .nan", "time_scale", "nan", "must be a number"),
    "infinite": ("lr: 1.0e-3", "lr: inf", "train.optimizer.lr", "inf", "must be a number"),
    "infinite-delay": ("transport: grpc", "rtt_ms: .inf", "bridge.links[0].rtt_ms", "inf", "must be a number"),
    "huge-number": ("steps: 4", f"steps: 1{'0' * 30}", "train.steps", "1e+15"),
    "huge-batch": ("global_batch: 4", "global_batch: 100000000", "train.global_batch", "more than 16384 micro-batches"),
    "huge-pool": ("count: 2, tp: 2", "count: 100000000, tp: 2", "pools.nvidia.count", "at most 1000000"),
    "huge-pool-and-tp": ("count: 2, tp: 2", "count: 100000000, tp: 3", "pools.nvidia.count", "at most 1000000"),
    "huge-replicas": ("share: 4", "replicas: 1000000000\n      share: 4", "balance.pipelines.share", "[4000000000]"),
    "huge-share": ("share: 4", "share: 100000", "balance.pipelines[0].share", "more than 16384 micro-batches"),
    "huge-range": (ASCEND, ASCEND.replace("6]", f"1{'0' * 12}]"), UNITS, "correct the range"),
    "huge-warmup": (ASCEND, ASCEND.replace("tp: 1", f"tp: 1, warmup: 1{'0' * 12}"), f"{STAGE}.warmup", "at most"),
    "huge-owns": (ASCEND, ASCEND.replace("tp: 1", f"tp: 1, owns: [[0, 1{'0' * 12}]]"), f"{STAGE}.owns", "<= 6"),
    "huge-width": ("hidden: 16", f"hidden: {8 * 10**15}", "model.dimensions.hidden", "1048576"),
    "weight-of-a-source": (
        "source: python-stdlib", "source: [{source: a.jsonl, weight: -1}]", "data.source[0].weight", "greater than 0",
    ),
    "unknown-codec": (
        "transport: grpc", "codec: int9", "bridge.links[0].codec", "'int8'? (known: bf16, fp8, int8, none)",
    ),
    "label": (
        "count: 2, tp: 2", "count: 2, tp: 2, select: {labels: {zone: in(}}", "pools.nvidia.select.labels.zone",
        "a word of letters",
    ),
    "huge-model": ("layers: 2", "layers: 1000000", "model", "at most 1000 layers"),
    "out-of-range": ("{lr: 1.0e-3}", "{betas: [0.9, 2]}", "train.optimizer.betas", "less than 1"),
    "pool-name": ("nvidia: {", "'a/b': {", "pools.a/b", "letters, digits", "such as a-b"),
    "twice": ("  global_batch: 4", "  steps: 5", "train.steps", "first on line 6"),
    "no-yaml": ("steps: 4", "steps: [4", "YAML", "must parse"),
    "tab": ("  steps: 4", "\tsteps: 4", "YAML", "must parse", "\\t"),
    "merge": ("  steps: 4", "  <<: {steps: 4}", "train.<<", "merged sections"),
    "no-word-for-a-key": ("  steps: 4", "  ? [a, b]\n  : 4", "train", "a key is one word"),
    "leading-zero": ("steps: 4", "steps: 0100", "train.steps", "octal to some readers", "0o17"),
    "address": ("source: python-stdlib", "source: file://server/share", "data.source", "of the server"),
    "no-date": ("steps: 4", "steps: 2001-99-99", "train.steps", "2001-99-99", "a valid integer"),
    "number-of-5000-digits": ("steps: 4", f"steps: {'9' * 5000}", "train.steps", "must parse"),
    "code": ("steps: 4", "steps: !!python/name:os.system", "YAML", "could not determine a constructor"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_mistake_is_told_at_its_line(
    case: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, key, *parts = case
    job = spoilt(tmp_path, old, new)
    refusal = refused(capsys, "plan", job)
    refusal.says(key, str(job), *parts)
    if key not in ("YAML", "balance.pipelines.share"):
        refusal.is_at(job, new.strip().splitlines()[0], key)
    assert list(tmp_path.iterdir()) == [job]


def test_a_stage_that_does_not_fit_its_chip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = spoilt(
        tmp_path, "hidden: 16, heads: 4, kv_heads: 2, ffn: 32", "hidden: 65536, heads: 64, kv_heads: 64, ffn: 262144"
    )
    refusal = refused(capsys, "plan", job)
    refusal.is_at(job, "pool: nvidia", "balance.pipelines[0].stages[0]")
    refusal.says("[(0, 2)]", "GiB (weights", "a chip of nvidia has 78.60 GiB", "fewer units, a larger tp")


def test_a_model_that_no_plan_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = spoilt(tmp_path, JOB[JOB.index("balance:") : JOB.index("checkpoint:")], "")
    large = "model={dimensions: {layers: 4, hidden: 65536, heads: 64, kv_heads: 64, ffn: 212992, vocab: 128256}}"
    refusal = refused(capsys, "plan", job, "--set", large)
    refusal.is_at(job, "nvidia: {", "pools.nvidia")
    refusal.says("the closest plan needs", "78.60 GiB")


def test_a_pool_in_no_stage_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = spoilt(tmp_path, f"        - {NVIDIA}\n        - {ASCEND}\n", f"        - {NVIDIA.replace('2]', '6]')}\n")
    assert run(["plan", str(job)]) == 0
    assert "note: 1 of 1 chips of pool ascend idle: the plan has no stage there" in capsys.readouterr().out


FILES = {
    "list": (b"- 1\n", "must be a mapping of sections"),
    "word": (b"hello\n", "must be a mapping of sections"),
    "nothing": (b"", "is required"),
    "null": (b"null\n", "must be a mapping of sections"),
    "two-documents": (JOB.encode() + b"---\na: 1\n", "must parse"),
    "not-utf-8": (b"name: caf\xe9\n" + JOB.encode(), "must be UTF-8 text"),
    "null-byte": (JOB.encode() + b"\x00", "unacceptable character #x0000"),
    "deep": (b"a: " + b"[" * 2000, "at most 50 deep"),
    "alias-of-itself": (b"a: &a [*a]\n", "at most 50 deep"),
    "alias-bomb": (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(b"%c: &%c [%b]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9))
        for c in range(ord("b"), ord("h"))), "at most 100000 values",
    ),
    "large": (b"# " + b"x" * (1 << 20), "at most 1 MiB"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "rule"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_job(content: bytes, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job.yaml"
    job.write_bytes(content)
    refused(capsys, "plan", job).says(str(job), rule)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("none.yaml", "No such file"),
        (".", "Is a directory"),
        ("/proc/self/mem", "must be a readable file"),
        ("/dev/zero", "at most 1 MiB"),
    ],
)
def test_a_path_that_is_no_file(path: str, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "plan", tmp_path / path).says("job file", rule)


SETTINGS = {
    "no-value": ("train.steps", "--set", "reads path=value"),
    "empty": ("", "--set", "''", "reads path=value"),
    "no-name": ("=1", "--set", "reads path=value"),
    "dots": ("train..steps=1", "--set", "reads path=value"),
    "null": ("train.steps=", "--set: train.steps", "null (nothing)"),
    "no-yaml": ("train.steps=[1", "--set train.steps", "must be YAML"),
    "no-such-item": ("bridge.links[9].transport=zmq", "--set bridge.links[9].transport", "has 1 items"),
    "huge-item": (f"bridge.links[{'9' * 5000}]=1", "--set bridge.links[99", "..."),
    "below-a-number": ("train.steps.deep=1", "--set train.steps.deep", "holds no other keys"),
    "unknown": ("träin.steps=1", "--set: träin", "did you mean 'train'"),
    "long": (f"train.steps={'x' * 100_000}", "--set: train.steps", "x ... x", "valid integer"),
    "many-lines": ("train.steps=" + "a\n\n" * 99, "--set: train.steps", "more lines"),
    "escapes": ('train.steps="\\e[2J"', "--set: train.steps", "\\x1b[2J"),
    "a-section": ("pools.nvidia={family: cuda, chip: A800-80G, count: -1}", "--set: pools.nvidia.count", "-1"),
    "twice": ("train={steps: 1, steps: 2}", "--set train", "stands once"),
}


@pytest.mark.parametrize("case", SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_makes_no_sense(
    case: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting, *parts = case
    refused(capsys, "plan", spoilt(tmp_path), "--set", setting).says(*parts)

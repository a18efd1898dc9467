"""What is taken over of a script of transformers' Trainer, and what is refused by name."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero import hf
from hetero.hf import Trainer, options_of
from hetero.job.errors import JobError
from hetero.models.as_hf import as_hf
from hetero.models.dimensions import Dimensions
from hetero.words.options import TrainOptions
from tests.architecture.tree import ROOT

EXAMPLES = ROOT / "examples"
SIZES = {"layers": 2, "hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 32, "vocab": 300}


class Schedule(str, Enum):
    LINEAR = "linear"
    COSINE = "cosine"


@dataclass
class Arguments:
    """Stands in for TrainingArguments, which takes seconds to import: those that are read, and two others."""

    output_dir: str
    max_steps: int = -1
    num_train_epochs: float = 3.0
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-5
    lr_scheduler_type: Schedule = Schedule.LINEAR
    warmup_steps: float = 0
    optim: str = "adamw_torch_fused"
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    seed: int = 42
    bf16: bool = False
    fp16: bool = False
    save_strategy: str = "steps"
    save_steps: float = 500
    save_total_limit: int | None = None
    logging_steps: int = 500
    label_smoothing_factor: float = 0.0


def _arguments(**changes: Any) -> Arguments:
    return Arguments("out", **{"max_steps": 100, "lr_scheduler_type": Schedule.COSINE, **changes})


def test_arguments_become_sections_of_a_job() -> None:
    found = options_of(
        _arguments(gradient_accumulation_steps=4, warmup_steps=5, bf16=True, save_steps=20, logging_steps=1), 100
    )
    options = TrainOptions.model_validate(found["train"])
    assert (options.steps, options.global_batch, options.precision, options.seed) == (100, 32, "bfloat16", 42)
    update = options.optimizer
    assert (update.schedule, update.warmup_steps, update.min_lr_ratio) == ("cosine", 5, 0.0)
    assert (update.lr, update.betas, update.eps, update.clip) == (5e-5, (0.9, 0.999), 1e-8, 1.0)
    assert found["checkpoint"] == {"every": 20}
    assert options_of(_arguments(save_strategy="no", save_total_limit=1), 9)["checkpoint"] == {"every": 9, "keep": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_train_epochs", 0),
        ("lr_scheduler_type", Schedule.LINEAR),
        ("optim", "adafactor"),
        ("save_strategy", "best"),
        ("warmup_steps", 0.1),
        ("label_smoothing_factor", 0.1),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(JobError) as caught:
        options_of(_arguments(**{"max_steps": -1, name: value}), 1)
    assert (caught.value.key, caught.value.value) == (name, getattr(value, "value", value))


def test_what_a_trainer_is_given_besides_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"Trainer\(data_collator\)"):
        Trainer("model", _arguments(), [], pools={}, seq_len=8, data_collator=print)


@pytest.mark.parametrize(("epochs", "steps"), [(2, 5), (0.5, 2)])
def test_epochs_are_as_many_whole_steps_as_show_each_record_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: float, steps: int
) -> None:
    """Of 20 records of 9 tokens, 8 a step, under the name that tokenized data sets have; padding is left out."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(hf, "train", lambda job, **_: asked.append(job))
    ids, mask = [*range(9), 0, 0], [1] * 9 + [0, 0]
    labels = [-100, -100, *range(2, 9), -100, -100]
    records = [{"input_ids": np.array(ids), "labels": labels, "attention_mask": mask} for _ in range(20)]
    arguments = _arguments(max_steps=-1, num_train_epochs=epochs)
    arguments.output_dir = str(tmp_path / "out")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(as_hf(Dimensions(**SIZES)).config)
    pools = {"here": {"family": "cpu", "count": 1}}
    Trainer(tmp_path / "model", arguments, records, pools=pools, seq_len=16).train()
    (job,) = asked
    assert job["train"]["steps"] == steps
    assert (job["data"]["loss"], job["data"]["fields"]["tokens"]) == ("answers", "input_ids")
    lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    assert {tuple(json.loads(line)["input_ids"]) for line in lines} == {tuple(range(9))}


def test_tokens_and_labels_are_as_many(tmp_path: Path) -> None:
    arguments = _arguments()
    arguments.output_dir = str(tmp_path)
    trainer = Trainer("model", arguments, [{"input_ids": [1, 2], "labels": [1]}], pools={}, seq_len=8)
    with pytest.raises(JobError, match="one of each for a token"):
        trainer.train()


@pytest.mark.parametrize(
    ("records", "rule"),
    [
        ([{"input_ids": [1]}, {"input_ids": [1], "labels": [1]}], "has labels, and the first record has no"),
        ([{"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [1, 2]}], "has no labels, and the first record has"),
        ([{"input_ids": [1, 2]}, {"text": "hm"}], "has no input_ids, and the first record has"),
        ([{"text": "hm"}, {"input_ids": [1, 2]}], "has input_ids, and the first record has no"),
    ],
)
def test_records_are_of_one_kind(tmp_path: Path, records: list[dict[str, Any]], rule: str) -> None:
    arguments = _arguments()
    arguments.output_dir = str(tmp_path / "out")
    with pytest.raises(JobError, match=f"record 1': {rule}"):
        Trainer("model", arguments, records, pools={}, seq_len=8).train()


def test_a_script_is_taken_over_in_under_ten_lines() -> None:
    before, after = ((EXAMPLES / f"{name}_trainer.py").read_text().splitlines() for name in ("transformers", "hetero"))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-" and line[2:].strip()]
    added = [line for line in changed if line[0] == "+"]
    assert 0 < len(added) < 10
    assert 0 < len(changed) - len(added) < 10

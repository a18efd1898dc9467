"""A script of `transformers.Trainer`, taken over: model, arguments and records become a job, and a directory again."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hetero.data.source import prepare
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.run.refusal import refuse_used
from hetero.training import AnyPath, train

if TYPE_CHECKING:
    from hetero.run import RunSummary

Record = Mapping[str, Any]

_ADAMW = ("adamw_torch", "adamw_torch_fused")
_SCHEDULES = {"constant": "constant", "constant_with_warmup": "constant", "cosine": "cosine"}
_SAVES = ("no", "steps")
_READ = {
    "output_dir", "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps",
    "learning_rate", "lr_scheduler_type", "warmup_steps", "optim", "weight_decay", "adam_beta1", "adam_beta2",
    "adam_epsilon", "max_grad_norm", "seed", "bf16", "fp16", "save_strategy", "save_steps", "save_total_limit",
}  # fmt: skip
_NO_MATTER = {
    "use_cpu", "logging_strategy", "logging_steps", "logging_first_step", "log_level", "do_train", "disable_tqdm",
    "report_to", "run_name", "logging_dir", "gradient_checkpointing", "gradient_checkpointing_kwargs",
    "per_device_eval_batch_size", "remove_unused_columns", "save_only_model", "tf32", "average_tokens_across_devices",
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
}  # fmt: skip
"""How often something is shown, how samples are fetched, and what a plan decides."""
_TOKENS, _LABELS, _KEPT = "input_ids", "labels", "attention_mask"


class Trainer:
    """Trains `model`, a PreTrainedModel or its directory, on records as `data` of a job reads them: a text, a prompt
    and its completion, messages, or tokens (`input_ids`), of which `labels` say which are learnt. Each has samples of
    its own, of `seq_len`; `set=["data.pack=true"]` packs them.

    The global batch is `per_device_train_batch_size * gradient_accumulation_steps`, whatever the pools are; without
    `max_steps` there are so many of them that each sample comes `num_train_epochs` times. `pools` is that section of a
    job file, `set` assigns any other key. Raises JobError for an argument that cannot be honoured."""

    def __init__(
        self,
        model: Any,
        args: Any,
        train_dataset: Iterable[Record],
        processing_class: Any = None,
        *,
        pools: Mapping[str, Any],
        seq_len: int,
        set: Iterable[str] = (),
        callbacks: Iterable[object] = (),
        **others: Any,
    ) -> None:
        for name, value in others.items():
            if value is not None:
                raise JobError(f"Trainer({name})", value, "is not taken over", "leave it out")
        options_of(args, 1)
        self.model = model
        self._args, self._folder = args, Path(args.output_dir)
        self._records, self._tokenizer = train_dataset, processing_class
        self._pools, self._seq_len, self._set, self._callbacks = pools, seq_len, tuple(set), tuple(callbacks)

    @property
    def run_dir(self) -> Path:
        return self._folder / "run"

    def train(self) -> RunSummary:
        """A model in memory has the trained values afterwards."""
        refuse_used(self.run_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        sections = {"model": self._written_model(), "data": self._written_data(), "pools": self._pools}
        steps = self._args.max_steps if self._args.max_steps > 0 else self._steps(sections)
        job = sections | options_of(self._args, steps)
        summary = train(job, set=self._set, run_dir=self.run_dir, callbacks=self._callbacks)
        if self._in_memory:
            with TemporaryDirectory(dir=self._folder) as folder:
                self.save_model(trained := Path(folder) / "trained")
                self.model.load_state_dict(type(self.model).from_pretrained(trained).state_dict())
        return summary

    def save_model(self, output_dir: AnyPath) -> None:
        """Writes what has been trained as a directory of Hugging Face, tokenizer included; nothing may be there."""
        from hetero.checkpoint.export import export
        from hetero.checkpoint.resume import ResumePoint
        from hetero.job.run.model import kept_files, recorded_adapters, recorded_model
        from hetero.models.as_hf import as_hf

        point = ResumePoint.parse(str(self.run_dir))
        lora, _ = recorded_adapters(self.run_dir)
        model, target = as_hf(recorded_model(self.run_dir)), Path(output_dir)
        export(point, model, kept_files(self.run_dir), target, "hf", None, merge=lora)

    def _steps(self, sections: dict[str, Any]) -> int:
        """Until each sample that is trained on has come as often as asked for; a last step is whole."""
        job = load_job(sections | options_of(self._args, 1), self._set)
        with TemporaryDirectory(dir=self._folder) as folder:
            samples = sum(prepare(job.text(), Path(folder), room=job.model.resolve().vocab).samples)
        left = samples - job.eval.held_out_batches * job.train.global_batch
        return max(1, math.ceil(self._args.num_train_epochs * left / job.train.global_batch))

    def _written_model(self) -> dict[str, Any]:
        if not self._in_memory:
            return {"hf": self.model}
        start = self._folder / "start"
        self.model.save_pretrained(start)
        if self._tokenizer is not None:
            self._tokenizer.save_pretrained(start)
        return {"hf": start}

    def _written_data(self) -> dict[str, Any]:
        path, made = self._folder / "records.jsonl", dict[str, Any]()
        with path.open("w", encoding="utf-8") as file:
            for record in map(_plain, self._records):
                made = made or _made(record)
                file.write(json.dumps(record) + "\n")
        said = {"source": path, "seq_len": self._seq_len, "pack": False, **made}
        if self._tokenizer is not None and not self._in_memory:
            self._tokenizer.save_pretrained(tokenizer := str(self._folder / "tokenizer"))
            return {**said, "tokenizer": tokenizer}
        if self._tokenizer is None and made:
            return said  # nobody needs one
        return {**said, "tokenizer": "model"}

    @property
    def _in_memory(self) -> bool:
        return not isinstance(self.model, (str, os.PathLike))


def _plain(record: Record) -> dict[str, Any]:
    """As JSON has it. Tokens are those that the attention mask keeps."""
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in record.items()}
    if _TOKENS not in plain:
        return plain
    told = {name: plain[name] for name in (_TOKENS, _LABELS, _KEPT) if name in plain}
    counts = {name: len(each) for name, each in told.items()}
    if len(set(counts.values())) > 1:
        raise JobError("Trainer(train_dataset)", counts, "a record has one of each for a token", "tokenize it anew")
    kept = told.pop(_KEPT, [1] * len(told[_TOKENS]))
    return {name: [value for value, keep in zip(each, kept, strict=True) if keep] for name, each in told.items()}


def _made(record: Record) -> dict[str, Any]:
    """What `data` says of tokens that were made before, if the record has them."""
    if _TOKENS not in record:
        return {}
    if _LABELS not in record:
        return {"fields": {"tokens": _TOKENS}}
    return {"fields": {"tokens": _TOKENS, "labels": _LABELS}, "loss": "answers"}


def options_of(args: Any, steps: int) -> dict[str, Any]:
    """The sections `train` and `checkpoint` of a job of so many steps, of transformers' TrainingArguments. Raises
    JobError for an argument that is not at its default and cannot be honoured."""
    plain = type(args)(output_dir=args.output_dir)
    for field in dataclasses.fields(args):
        value = _value(args, field.name)
        if field.name not in _READ | _NO_MATTER and value != _value(plain, field.name):
            raise JobError(field.name, value, "is not honoured", "leave it at its default")
    if args.max_steps <= 0:
        rule = "must be positive where max_steps does not say how long a run is"
        _check(args, "num_train_epochs", lambda epochs: epochs > 0, rule, "set either")
    _check(args, "optim", lambda name: name in _ADAMW, f"must be one of {', '.join(_ADAMW)}", "use AdamW")
    schedules = f"must be one of {', '.join(_SCHEDULES)}"
    _check(args, "lr_scheduler_type", lambda name: name in _SCHEDULES, schedules, "use another schedule")
    _check(args, "save_strategy", lambda name: name in _SAVES, f"must be {' or '.join(_SAVES)}", "use save_steps")
    for name in ("warmup_steps", "save_steps"):
        _check(args, name, lambda steps: steps == int(steps), "must be whole steps", "give a number of steps")
    checkpoint: dict[str, Any] = {"every": int(args.save_steps) if _value(args, "save_strategy") == "steps" else steps}
    if args.save_total_limit is not None:
        checkpoint["keep"] = args.save_total_limit
    train_options = {
        "steps": steps,
        "global_batch": args.per_device_train_batch_size * args.gradient_accumulation_steps,
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "seed": args.seed,
        "optimizer": _optimizer(args),
    }
    return {"train": train_options, "checkpoint": checkpoint}


def _optimizer(args: Any) -> dict[str, Any]:
    """`constant` of transformers has no warm-up, and its cosine ends at 0."""
    schedule = _value(args, "lr_scheduler_type")
    return {
        "name": "adamw", "lr": args.learning_rate, "schedule": _SCHEDULES[schedule],
        "warmup_steps": 0 if schedule == "constant" else int(args.warmup_steps), "min_lr_ratio": 0.0,
        "weight_decay": args.weight_decay, "betas": [args.adam_beta1, args.adam_beta2], "eps": args.adam_epsilon,
        "clip": args.max_grad_norm or None,
    }  # fmt: skip


def _check(args: Any, name: str, good: Callable[[Any], bool], rule: str, remedy: str) -> None:
    value = _value(args, name)
    if not good(value):
        raise JobError(name, value, rule, remedy)


def _value(args: Any, name: str) -> Any:
    """Of an enumeration, what people write."""
    value = getattr(args, name)
    return value.value if isinstance(value, Enum) else value

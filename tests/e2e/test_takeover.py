"""A script of transformers' Trainer and the same taken over, each as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.architecture.tree import ROOT
from tests.e2e.command import Run, short_folder
from tests.patience import RUN_S
from tests.tiny_hf import write_llama
from tests.unit.hetero.data.made_tokenizer import made_tokenizer


def _run(place: Path, script: str) -> Path:
    out = place / script
    surroundings = os.environ | {"XDG_CACHE_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    arguments = [ROOT / "examples" / f"{script}_trainer.py", place / "model", place / "data.jsonl", out]
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=place, env=surroundings, capture_output=True, text=True,
        timeout=RUN_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return out


@pytest.mark.exhaustive
def test_both_leave_a_trained_model_that_transformers_loads() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with short_folder() as place:
        write_llama(place / "model", vocab_size=320)
        made_tokenizer(place / "model", pad_token="<|im_end|>")
        texts = [f"the quick brown fox {number} jumps over the lazy dog" for number in range(24)]
        (place / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        start = AutoModelForCausalLM.from_pretrained(place / "model")
        for script in ("transformers", "hetero"):
            out = _run(place, script)
            model = AutoModelForCausalLM.from_pretrained(out)
            sample = AutoTokenizer.from_pretrained(out)(texts[0], return_tensors="pt").input_ids
            with torch.no_grad():
                before, after = (one(sample, labels=sample).loss.item() for one in (start, model))
            assert after < before - 0.05, script
        assert [line["step"] for line in Run(place / "hetero-training" / "run").metrics] == [0, 1, 2]

"""Where what is known of a model comes from. Torch-free.

A process that has torch and transformers looks into the modules; what it finds is kept beside the caches of this user,
by the model and the release of transformers.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from backends.program import program
from bridge.words.release import RELEASE
from hetero.models.errors import ModelError
from hetero.models.hf_model import HfModel, config_error
from hetero.models.provided.told import ToldModel
from hetero.paths import cache_home
from hetero.private import private_files

FORM = 4
"""Of what is kept: another number looks anew."""
MOST_S = 600
_MODULE = f"{__package__}.described"


@cache
def is_there(kind: str) -> bool:
    """Whether transformers is installed and has causal models of the type, by its own list, which is not run."""
    if (found := find_spec("transformers")) is None or found.origin is None:
        return False
    try:
        listed = (Path(found.origin).parent / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    except OSError:
        return False
    _, _, causal = listed.partition("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
    return f'("{kind}", ' in causal.partition("\n)")[0]


@lru_cache(maxsize=8)
def told_of(model: HfModel) -> ToldModel:
    """ModelError where transformers is not here, or its modules of the model cannot be units."""
    try:
        release = version("transformers")
    except PackageNotFoundError:
        rule = "it is none of the native types, and runs on transformers' own modules, which is not installed here"
        raise config_error("model_type", model.model_type, rule, "pip install transformers, or hetero[hf]") from None
    name = hashlib.sha256(f"{FORM} {RELEASE} {release} {model.config}".encode()).hexdigest()[:32]
    if (kept := _read(name)) is not None:
        return kept
    told = _looked_into(model)
    _write(name, told)
    return told


def _looked_into(model: HfModel) -> ToldModel:
    """Here, where transformers is loaded already, else in a process apart."""
    if "transformers" in sys.modules and "torch" in sys.modules:
        found: ToldModel = import_module(_MODULE).describe(model)
        return found
    command = program(f"{__package__}.child")
    done = subprocess.run(command, input=model.config, capture_output=True, text=True, timeout=MOST_S, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        rule = f"transformers' modules of it could not be looked into ({last})"
        raise config_error("model_type", model.model_type, rule, "choose a model of another type") from None
    if "fault" in answer:
        raise ModelError(**answer["fault"])
    return ToldModel.model_validate(answer["told"])


def _folder() -> Path:
    return cache_home() / "models"


def _read(name: str) -> ToldModel | None:
    try:
        return ToldModel.model_validate_json((_folder() / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return None


@private_files()
def _write(name: str, told: ToldModel) -> None:
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{name}.{os.getpid()}"
        unfinished.write_text(told.model_dump_json())
        unfinished.replace(folder / f"{name}.json")
    except OSError:
        return

"""How fast data is made ready: `python -m benchmarks.data [--json]`.

The source text of Python's standard library, as JSON lines of some hundred tokens, becomes tokens by a tokenizer that
is trained on it here. What is compared is `tokenizers` alone, which is given the same texts in one batch and reads and
writes nothing, on the same cores, turn about.

    prepare_vs_tokenizers        texts: from the file to packed samples, as a rate over that of `encode_batch`
    prepare_vs_fast_tokenizers   the same over that of `encode_batch_fast`, which finds no offsets
    prepare_chats_vs_tokenizers  chats, of which answers alone are learnt, over `encode_batch` of what they render to
    prepare_cpu_vs_tokenizers    texts: CPU seconds of `encode_batch` over those of all that is done
    prepare_chats_cpu_vs_tokenizers  the same of chats
    prepare_tokens_per_s         texts
    read_tokens_per_s            tokens of packed samples that one rank reads, as micro-batches
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.report import print_report
from hetero.data.batches import micro_batch
from hetero.data.built_in import standard_library
from hetero.data.options import DataOptions
from hetero.data.prepared import Prepared
from hetero.data.source import prepare
from hetero.data.text import orders, text_stream

VOCAB, SEQ_LEN, LINES_EACH, SAMPLES = 8192, 2048, 60, 256
SPECIAL = ["<|start|>", "<|end|>"]
TEMPLATE = "{% for m in messages %}{{ '<|start|>' + m.role + '\n' + m.content + '<|end|>\n' }}{% endfor %}"
Seconds = float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), options.rounds)
    print_report("data", figures, emulated=False, quiet=options.json)


def measured(folder: Path, rounds: int) -> dict[str, float]:
    """The best of some rounds of each way."""
    texts = list(_texts())
    tokenizer = _trained(folder / "tokenizer", texts)
    rows: dict[str, list[dict[str, Any]]] = {
        "texts": [{"text": text} for text in texts],
        "chats": [{"messages": _chat(text)} for text in texts],
    }
    for name, listed in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    rendered = ["".join(f"<|start|>{m['role']}\n{m['content']}<|end|>\n" for m in _chat(text)) for text in texts]
    ways: dict[str, Callable[[int], object]] = {
        "batch": lambda _: tokenizer.encode_batch(texts),
        "fast": lambda _: tokenizer.encode_batch_fast(texts),
        "texts": lambda number: _prepared(folder, "texts", number, loss="all"),
        "rendered": lambda _: tokenizer.encode_batch(rendered),
        "chats": lambda number: _prepared(folder, "chats", number, loss="answers"),
    }
    took = [{name: _timed(way, number) for name, way in ways.items()} for number in range(rounds)]
    best = {name: min(one[name][0] for one in took) for name in ways}
    cpu = {name: min(one[name][1] for one in took) for name in ways}
    text = _prepared(folder, "texts", rounds, loss="all")
    return {
        "prepare_vs_tokenizers": best["batch"] / best["texts"],
        "prepare_vs_fast_tokenizers": best["fast"] / best["texts"],
        "prepare_chats_vs_tokenizers": best["rendered"] / best["chats"],
        "prepare_cpu_vs_tokenizers": cpu["batch"] / cpu["texts"],
        "prepare_chats_cpu_vs_tokenizers": cpu["rendered"] / cpu["chats"],
        "prepare_tokens_per_s": text.n_tokens / best["texts"],
        "read_tokens_per_s": _read(text),
    }


def _timed(way: Callable[[int], object], number: int) -> tuple[Seconds, Seconds]:
    """By the clock, and of all cores together."""
    start, busy = time.perf_counter(), time.process_time()
    way(number)
    return time.perf_counter() - start, time.process_time() - busy


def _prepared(folder: Path, name: str, number: int, **options: Any) -> Prepared:
    """Anew each time: nothing is found in a cache."""
    os.environ["XDG_CACHE_HOME"] = str(folder / f"cache-{name}-{number}")
    source = str(folder / f"{name}.jsonl")
    said = DataOptions(source=source, tokenizer=str(folder / "tokenizer"), seq_len=SEQ_LEN, **options)
    return prepare(said, folder / "made")


def _read(text: Prepared) -> float:
    run = text.told(SEQ_LEN)
    stream = text_stream(run)
    order, _ = orders(run, stream, 0, 0)
    seconds, _ = _timed(lambda _: micro_batch(stream, order, 0, SAMPLES), 0)
    return SAMPLES * SEQ_LEN / seconds


def _texts() -> Iterator[str]:
    """Stretches of lines."""
    for file in standard_library():
        lines = b"".join(file.pieces()).decode("utf-8", "replace").splitlines(keepends=True)
        for first in range(0, len(lines), LINES_EACH):
            yield "".join(lines[first : first + LINES_EACH])


def _chat(text: str) -> list[dict[str, str]]:
    """Its first third is asked, the rest answered."""
    cut = len(text) // 3
    return [{"role": "user", "content": text[:cut]}, {"role": "assistant", "content": text[cut:] or "."}]


def _trained(folder: Path, texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts[::4], trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return tokenizer


if __name__ == "__main__":
    main()

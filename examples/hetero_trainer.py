"""Fine-tunes a causal model on the texts of a JSON lines file, on chips of three vendors: MODEL DATA.jsonl OUT."""

import json
import sys

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    TrainingArguments,
)

from hetero.hf import Trainer

CHIPS = [("nvidia", "cuda", "A800-80G"), ("ascend", "ascend", "Ascend-910B2"), ("kunlun", "kunlun", "Kunlun-P800")]


def main(directory: str, data: str, out: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    with open(data) as file:
        records = [json.loads(line) for line in file]
    args = TrainingArguments(
        output_dir=f"{out}-training",
        max_steps=3,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        adam_beta2=0.95,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=records,
        processing_class=tokenizer,
        seq_len=32,
        pools={name: {"family": family, "chip": chip, "count": 1, "emulate": {}} for name, family, chip in CHIPS},
    )
    trainer.train()
    trainer.save_model(out)


if __name__ == "__main__":
    main(*sys.argv[1:])

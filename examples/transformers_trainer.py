"""Fine-tunes a causal model on the texts of a JSON lines file, by transformers: MODEL DATA.jsonl OUT."""

import json
import sys

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)


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
        train_dataset=[tokenizer(record["text"], truncation=True, max_length=32) for record in records],
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    trainer.train()
    trainer.save_model(out)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Trains for benchmarks/quality.py as users of TRL and of Unsloth would, with the experiment's settings.

    python -m benchmarks.quality_peers trl ADAPTER KEY=VALUE...      in the folder of the prepared data

They learn from the prepared chats, which they tokenize and mark themselves: TRL as prompt and completion, Unsloth by
the texts that begin a turn. Rows, updates, rate, schedule, batch and adapter are the experiment's, all else their own.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.models.packaged import located

# Unsloth has to be imported before Transformers, TRL and PEFT, which it patches: they are imported where they are used.

REPOSITORY = Path(__file__).parents[1]
TRAIN = "data/prepared/train.parquet"
# What `all-linear` is on this model.
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# SmolLM2's turns, as Unsloth's notebooks have them for other models.
ASKED, ANSWERED = "<|im_start|>user\n", "<|im_start|>assistant\n"


def main() -> None:
    """Train, and save the adapter."""
    engine, adapter, *settings = sys.argv[1:]
    config = load(compose(REPOSITORY / "conf", settings))
    trainer = {"trl": trl_trainer, "unsloth": unsloth_trainer}[engine](config, Path(adapter).parents[1] / "trainer")
    from transformers.trainer_utils import get_last_checkpoint

    trainer.train(resume_from_checkpoint=get_last_checkpoint(trainer.args.output_dir))
    trainer.save_model(adapter)


def trl_trainer(config: Config, folder: Path) -> Any:
    """Return SFTTrainer on prompts and completions, which it learns the completions of."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    def parted(row: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}

    path, revision = located(config.model.path, config.model.revision)
    on_gpu = torch.cuda.is_available()
    lora = LoraConfig(**lora_settings(config), task_type="CAUSAL_LM")
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            path, revision=revision, dtype=torch.bfloat16 if on_gpu else torch.float32
        ),
        args=SFTConfig(**common_settings(config, folder)),
        train_dataset=Dataset.from_parquet(TRAIN).map(parted, remove_columns="messages"),
        processing_class=AutoTokenizer.from_pretrained(path, revision=revision),
        peft_config=lora,
    )


def unsloth_trainer(config: Config, folder: Path) -> Any:
    """Return Unsloth's model in the trainer of its notebooks."""
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(folder / "compiled")  # of its own, as runs may go on at once
    from unsloth import FastLanguageModel  # isort: skip
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from unsloth.chat_templates import train_on_responses_only

    path, revision = located(config.model.path, config.model.revision)
    base, tokenizer = FastLanguageModel.from_pretrained(
        path, revision=revision, max_seq_length=config.train.max_length, dtype=torch.bfloat16, load_in_4bit=False
    )
    model = FastLanguageModel.get_peft_model(
        base,
        **lora_settings(config),
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=config.train.seed,
    )

    def texts(batch: dict[str, list[Any]]) -> dict[str, list[str]]:
        return {"text": [tokenizer.apply_chat_template(chat, tokenize=False) for chat in batch["messages"]]}

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**common_settings(config, folder), dataset_text_field="text", optim="adamw_8bit"),
        train_dataset=Dataset.from_parquet(TRAIN).map(texts, batched=True, remove_columns="messages"),
        processing_class=tokenizer,
    )
    return train_on_responses_only(trainer, instruction_part=ASKED, response_part=ANSWERED)


def lora_settings(config: Config) -> dict[str, Any]:
    """Return the adapter's, by PEFT's names."""
    lora = config.train.lora
    return {
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": PROJECTIONS,
    }


def common_settings(config: Config, folder: Path) -> dict[str, Any]:
    """Return what every training shares, by the trainer's names."""
    train = config.train
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": train.update_size,
        "gradient_accumulation_steps": 1,  # for which Unsloth's configuration has another default
        "max_steps": train.max_steps,
        "max_length": train.max_length,
        "learning_rate": train.lr,
        "lr_scheduler_type": train.scheduler,
        "warmup_steps": train.warmup_ratio,  # a share of all updates where it is below 1
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "seed": train.seed,
        "bf16": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "save_steps": 100,  # so that a training that was cut off goes on
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }


if __name__ == "__main__":
    main()

"""What the comparison of trainings runs on: a model of a real one's shape with random weights, and prepared chats.

    python -m benchmarks.inputs 1b MODEL 12800 ROWS      what benchmarks/train.py runs first

MODEL is a model's folder with the starter's tokenizer: what a training step costs does not depend on which ids there
are. ROWS has the chats as the pipeline prepares them and, for the peers, tokenized and labelled. Each is made once.
"""

import argparse
import contextlib
import json
import random
import shutil
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from benchmarks.peers import IGNORED, MAX_LENGTH, RANK, TOKENIZED
from common.files import atomic_path, write_json
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.stages.prepare import prepare
from pipeline.training.rows import supervised

REPOSITORY = Path(__file__).parents[1]
CHATS = REPOSITORY / "starter/chats.jsonl"
STARTER = REPOSITORY / "starter/models/starter-m"
SEED = 0

# Of Llama 3.2's 1B and 3B, and one that a CPU trains in seconds.
SHAPES: dict[str, dict[str, Any]] = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
           "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256},
    "tiny": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 2048},
}  # fmt: skip

# Lengths are drawn like those of FineTome's conversations: most are short, a few fill the context.
LENGTH_MU, LENGTH_SIGMA = 5.75, 0.8  # of the logarithm of a length in tokens
SHORTEST = 32  # tokens; MAX_LENGTH at most
SAID = 0.6  # the share of a conversation's tokens that is the assistant's
VALIDATION, TESTS = 64, 1  # conversations; of tests, the least that preparation asks for
# What the rows are prepared from, which the train stage has to be asked for, too.
DATA = [
    "data.name=benchmark",
    "data.files=[chats.jsonl]",
    "data.questions=null",
    f"data.validation={VALIDATION}",
    f"data.test={TESTS}",
    "data.seed=0",
]


def main() -> None:
    """Make what is missing of a model and its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("model", type=Path)
    parser.add_argument("conversations", type=int, help="to train on")
    parser.add_argument("rows", type=Path)
    arguments = parser.parse_args()
    if not arguments.model.is_dir():
        make_model(arguments.model, llama(arguments.shape))
    if not arguments.rows.is_dir():
        make_rows(arguments.rows, arguments.conversations)


def llama(shape: str) -> LlamaConfig:
    """Return the configuration of one of SHAPES."""
    return LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=True,
        initializer_range=0.02,
        bos_token_id=0,  # the starter tokenizer's
        eos_token_id=5,
    )


def make_model(path: Path, config: LlamaConfig) -> None:
    """Write random weights in bf16, drawn on the GPU where there is one.

    `parameters.json` beside them has their counts.
    """
    torch.manual_seed(SEED)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with atomic_path(path) as temporary:
        model.save_pretrained(temporary)
        for file in STARTER.iterdir():
            if file.suffix != ".safetensors" and file.name != "config.json":
                shutil.copy(file, temporary)
        write_json(temporary / "parameters.json", parameters(model))


def parameters(model: Any) -> dict[str, int]:
    """Count: the decoder layers' and norms' weights, the head's, and an adapter's of RANK on every projection."""
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    decoder = sum(weight.numel() for weight in model.model.parameters())
    return {
        "layers": decoder - model.get_input_embeddings().weight.numel(),
        "head": head.weight.numel(),
        "adapter": RANK * sum(module.in_features + module.out_features for module in linear),
    }


def make_rows(path: Path, conversations: int) -> None:
    """Take chats through the pipeline's own preparation and tokenizing.

    `rows.json` beside them says what they are like.
    """
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    with atomic_path(path) as temporary:
        temporary.mkdir()
        write_chats(temporary / "chats.jsonl", conversations + VALIDATION + TESTS, tokenizer)
        prepare(load(compose(REPOSITORY / "conf", DATA)).data, temporary, temporary)
        with contextlib.chdir(temporary):
            rows = supervised("train", tokenizer, MAX_LENGTH)
        rows.save_to_disk(temporary / TOKENIZED)
        write_json(temporary / "rows.json", row_facts(rows))


def write_chats(path: Path, count: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write `count` distinct chats of one question and one answer, cut from the starter's texts to the lengths drawn.

    A word costs the same tokens wherever it stands, so a passage is as long as the sum over its words.
    """
    draw = random.Random(SEED)
    lines = CHATS.read_text(encoding="utf-8").splitlines()
    words = " ".join(message["content"] for line in lines for message in json.loads(line)["messages"]).split()
    before = [0, *accumulate(costs(tokenizer, words))]  # tokens before each word
    numbers = costs(tokenizer, [str(index) for index in range(count)])
    frame = len(tokenizer.apply_chat_template(chat("", ""), return_dict=False))

    def passage(tokens: int) -> str:
        start = draw.randrange(len(words) - MAX_LENGTH)
        return " ".join(words[start : bisect_right(before, before[start] + tokens) - 1])

    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            length = int(min(max(draw.lognormvariate(LENGTH_MU, LENGTH_SIGMA), SHORTEST), MAX_LENGTH))
            answer = round(SAID * length) - 1  # the end of its turn is the assistant's, too
            question = passage(max(length - frame - answer - numbers[index], 0))
            file.write(json.dumps({"messages": chat(f"{index} {question}", passage(answer))}) + "\n")


def chat(question: str, answer: str) -> list[dict[str, str]]:
    """Return one turn each."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def costs(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> list[int]:
    """Return tokens that each word takes behind a space."""
    distinct = list(dict.fromkeys(words))
    ids = tokenizer([f" {word}" for word in distinct], add_special_tokens=False)["input_ids"]
    cost = {word: len(tokens) for word, tokens in zip(distinct, ids, strict=True)}
    return [cost[word] for word in words]


def row_facts(rows: Dataset) -> dict[str, float]:
    """Return how many rows, tokens and tokens to learn there are."""
    lengths = [len(ids) for ids in rows["input_ids"]]
    learnt = sum(label != IGNORED for labels in rows["labels"] for label in labels)
    return {
        "conversations": len(lengths),
        "mean_tokens": round(sum(lengths) / len(lengths), 1),
        "longest": max(lengths),
        "supervised_share": round(learnt / sum(lengths), 4),
    }


if __name__ == "__main__":
    main()

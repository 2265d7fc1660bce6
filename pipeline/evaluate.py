"""Base against tuned on the same held-out rows, questions and prompts; every GGUF on the same tokens.

Writes reports/metrics.json, reports/evaluation.md, reports/evaluation.png, and for the chat models/card.json.
"""

import json
import math
from pathlib import Path
from typing import Any

import hydra
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipeline.config import Config, EvaluateSettings
from pipeline.errors import UserError
from pipeline.evaluation.answers import answer_all, answer_timed
from pipeline.evaluation.card import model_card
from pipeline.evaluation.loss import Conversation, measure_loss
from pipeline.evaluation.questions import accuracies, as_chat, read_questions
from pipeline.evaluation.report import draw, markdown
from pipeline.export import ADAPTER, GGUF, MANIFEST, read_lineage
from pipeline.files import write_json, write_text
from pipeline.gguf.score import loss, tokens_per_second
from pipeline.stage import stage
from pipeline.tracking import tracked, training_folder
from pipeline.training.chat import encode
from pipeline.training.engines import choose_device, load_base, merge_adapter

TEST = Path("data/prepared/test.parquet")
QUESTIONS = Path("data/prepared/questions.jsonl")
METRICS, REPORT, PLOT = Path("reports/metrics.json"), Path("reports/evaluation.md"), Path("reports/evaluation.png")
PREPARED = Path("reports/prepare.json")
CARD = Path("models/card.json")  # the chat looks for it beside its GGUF files, and in the folder above
HEADLINE_GROUP = "held_out"  # of the questions, where they have groups


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
@stage
def main(config: Config, out: Path) -> None:
    """Evaluates models/adapter and models/gguf against the base, into `out`/reports."""
    lineage = read_lineage(ADAPTER, config.model)
    tokenizer = AutoTokenizer.from_pretrained(str(ADAPTER))
    rows = test_rows(tokenizer, config.evaluate)
    metrics, answers = compare(config, tokenizer, rows)
    metrics["gguf"] = measure_ggufs(GGUF, rows, config.evaluate)
    write_json(out / METRICS, metrics)
    write_text(out / REPORT, markdown(metrics, config.evaluate.prompts, answers, config.model.name))
    draw(out / PLOT, metrics)
    prepared = _read(PREPARED) if PREPARED.is_file() else None
    card = model_card(lineage, prepared, _read(GGUF / MANIFEST), metrics, config.evaluate.prompts)
    write_json(out / CARD, card)
    journal = training_folder(config, lineage["fingerprint"])
    with tracked(config, journal, config.model.name, lineage["mlflow_run"]) as run:
        run.params(config, ("evaluate",))
        run.metrics(metrics)
        for path in (METRICS, REPORT, PLOT, CARD):
            run.artifact(out / path)


def compare(
    config: Config, tokenizer: PreTrainedTokenizerBase, rows: list[Conversation]
) -> tuple[dict[str, Any], dict[str, list]]:
    """The figures of base and tuned model, and their answers to the prompts."""
    device = choose_device(config.runtime.device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = load_base(*config.model.merge_base, device, dtype)
    metrics, answers = {}, {}
    print("measuring the base model", flush=True)
    metrics["base"], answers["base"] = measure(model, tokenizer, rows, config.evaluate)
    if (ADAPTER / "adapter_config.json").is_file():
        model = merge_adapter(model, ADAPTER)
    else:
        model = load_base(str(ADAPTER), None, device, dtype)
    print("measuring the tuned model", flush=True)
    metrics["tuned"], answers["tuned"] = measure(model, tokenizer, rows, config.evaluate)
    return metrics, answers


def measure(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: list[Conversation], settings: EvaluateSettings
) -> tuple[dict[str, Any], list]:
    """Loss, perplexity, speed, accuracy and answers of one model."""
    model.eval()
    nats, samples_per_second = measure_loss(model, rows, settings.batch_size, tokenizer.pad_token_id)
    figures: dict[str, Any] = {
        "loss": round(nats, 5),
        "perplexity": round(math.exp(nats), 4),
        "samples_per_second": round(samples_per_second, 2),
    }
    questions = read_questions(QUESTIONS, settings.max_questions)
    if questions:
        chats = [as_chat(question) for question in questions]
        replies = answer_all(model, tokenizer, chats, settings.max_new_tokens, settings.batch_size)
        right = accuracies(questions, replies)
        figures["accuracy"] = right["groups"].get(HEADLINE_GROUP, next(iter(right["groups"].values())))
        figures["accuracy_by_group"], figures["accuracy_by_task"] = right["groups"], right["tasks"]
    return figures, answer_timed(model, tokenizer, settings.prompts, settings.max_new_tokens)


def measure_ggufs(folder: Path, rows: list[Conversation], settings: EvaluateSettings) -> dict[str, Any]:
    """Loss and perplexity on the same tokens, size, and speed of answering, of each exported file.

    Raises:
        UserError: the manifest is missing, or a file cannot be loaded.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder / MANIFEST} is missing; run `dvc repro export` first")
    manifest = _read(folder / MANIFEST)
    figures = {}
    for file in manifest["files"]:
        print(f"measuring {file['file']}", flush=True)
        nats = loss(folder / file["file"], rows)
        speed = tokens_per_second(folder / file["file"], settings.prompts, settings.max_new_tokens)
        figures[file["type"]] = {
            "loss": round(nats, 5),
            "perplexity": round(math.exp(nats), 4),
            "bytes": file["bytes"],
            "tokens_per_second": round(speed, 1),
        }
    return figures


def test_rows(tokenizer: PreTrainedTokenizerBase, settings: EvaluateSettings) -> list[Conversation]:
    """The test split as token ids with the assistant's tokens marked; rows without any are left out.

    Raises:
        UserError: the split is missing, or none of its rows has anything to score.
    """
    if not TEST.is_file():
        raise UserError(f"{TEST} is missing; run `dvc repro prepare` first")
    conversations = pq.read_table(TEST)["messages"].to_pylist()[: settings.max_rows]
    rows: list[Conversation] = [encode(tokenizer, messages, settings.max_length) for messages in conversations]
    # The first token is predicted from nothing, so it never counts.
    rows = [row for row in rows if any(row[1][1:])]
    if not rows:
        raise UserError(
            f"no test row has an assistant token within evaluate.max_length {settings.max_length}; raise it"
        )
    return rows


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    main()

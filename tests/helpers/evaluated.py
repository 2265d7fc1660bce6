"""What an evaluation writes, in small: two prompts, and figures that a test chooses."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from recorded_run import SETTINGS, TRAIN

from common.files import sha256

PROMPTS = ["What is 5 + 6?", "Write a haiku | about <b>programming</b>."]
CHECKED = ("of", "bytes", "kl", "top_1", "perplexity")  # of a file, in the manifest
SECONDS = {"F16": 0.5, "Q8_0": 0.25, "Q4_K_M": 0.125}


def evaluation(
    model: str,
    files: Mapping[str, Mapping[str, Any]],
    *,
    accuracy: float | None = 0.9,
    loss: float = 0.1,
    failed: str | None = None,
    missing: int = 0,
    questions: int = 573,
    pairs: int = 0,
    test: str = "7" * 64,
    **more: Any,
) -> dict[str, Any]:
    """reports/evaluation.json of a model whose GGUF files have these figures beside the usual ones.

    Args:
        failed: the name of a check that it does not pass.
        missing: how many more test conversations it would take to tell.
        pairs: of answers that are held out; files choose rightly in a share of `preference_accuracy`, a half by itself.
        test: the digest of the test rows.
        more: keys that replace those of the evaluation.
    """
    asked = {} if accuracy is None else _accuracy(accuracy)
    questions = 0 if accuracy is None else questions
    tuned = {"loss": loss, "perplexity": 1.1052, "samples_per_second": 80.5, **asked}
    if pairs:
        tuned |= {"preference_accuracy": 0.5, "pairs": pairs}
    checks = [{"name": "gain", "what": "the loss fell by 1.6 nats", "figure": 1.6, "limit": 0.0, "passed": True}]
    if failed:
        checks.append({"name": failed, "what": "perplexity rose by 9%", "figure": 0.09, "limit": 0.05, "passed": False})
    if missing:
        few = {"name": "test conversations", "what": "too few of them: raise data.test", "missing": missing}
        checks.append({**few, "figure": 50 - missing, "limit": 50, "passed": None})
    return {
        "schema_version": 2,
        "model": model,
        "fingerprint": hashlib.sha256(model.encode()).hexdigest()[:16],
        "base": {"path": f"starter/models/{model}", "revision": None},
        "mlflow_run": None,
        "rows": 300,
        "tokens": 12345,
        "questions": questions,
        "verdict": {"passed": failed is None and not missing, "checks": checks},
        "base_model": tuned | {"loss": 1.7},
        "tuned_model": tuned,
        "gain": {"loss": 1.6, "low": 1.5, "high": 1.7},
        "gguf": {kind: _gguf(kind, tuned, own) for kind, own in files.items()},
        "prompts": PROMPTS,
        "answers": {kind: [_answer(kind, prompt) for prompt in PROMPTS] for kind in ("base", "tuned", *files)},
        "lengths": {"reference": [3, 4] * 150, **dict.fromkeys(("base", "tuned"), [9] * (questions + len(PROMPTS)))},
        "training": {
            "seconds": 57.25,
            "peak_memory_gib": 2.408,
            "peak_memory_training_gib": 1.205,
            "peak_memory_share": 0.06087,
            "peak_memory_training_share": 0.03046,
        },
        "curve": [],
        "prepared": _prepared(test),
        "settings": settings(),
        **more,
    }


def settings(lr: float = 5e-3) -> dict[str, Any]:
    """Of a training on the starter data."""
    data = {"name": "starter", "source": "files", "path": None, "seed": 42}
    return SETTINGS | {"data": data, "train": TRAIN | {"lr": lr}}


def _accuracy(share: float) -> dict[str, Any]:
    return {"accuracy": share, "accuracy_by_group": {"held_out": share}, "accuracy_by_task": {"held_out/sum": share}}


def _gguf(kind: str, tuned: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    figures = {key: value for key, value in tuned.items() if key != "samples_per_second"}
    usual = {"of": "tuned", "bytes": 1_000_000, "kl": 1e-4, "top_1": 0.99, "tokens_per_second": 812.5}
    return {**figures, **usual, "first_token_seconds": 0.0123, "answer_seconds": SECONDS.get(kind, 1.0), **own}


def _prepared(test: str) -> dict[str, Any]:
    return {
        "data": "starter",
        "revision": None,
        "files": [{"file": "chats.jsonl", "format": "messages", "rows": 910, "usable": 900, "dropped": {"empty": 10}}],
        "not_read": {},
        "duplicates": 0,
        "seed": 42,
        "splits": {name: {"rows": 300, "sha256": test} for name in ("train", "validation", "test")},
        "questions": {"given": 573, "in_training": 0, "kept": 573, "groups": {"held_out": 573}},
        "characters": {},
    }


def _answer(kind: str, prompt: str) -> dict[str, Any]:
    reply = f"{kind} says\n11 | `code` to {prompt}"
    return {"reply": reply, "tokens": 5, "first_token_seconds": 0.01, "seconds": 0.3456, "tokens_per_second": 14.5}


def rows_of(evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """reports/rows.json of an evaluation: rows that come to the losses that it has, answers to its accuracies.

    Models differ from row to row by a little, and one answers right what a worse one does.
    """
    pairs = evaluated["tuned_model"].get("pairs", 0)
    count, asked, test = evaluated["rows"], evaluated["questions"], evaluated["prepared"]["splits"]["test"]["sha256"]
    tokens = np.full(count, evaluated["tokens"] // count)
    tokens[: evaluated["tokens"] % count] += 1
    models = {"base": evaluated["base_model"], "tuned": evaluated["tuned_model"], **evaluated["gguf"]}
    return {
        "schema_version": 1,
        "rows": [f"{test[:4]} {number}" for number in range(count)],
        "tokens": tokens.tolist(),
        "questions": [f"{asked} {number}" for number in range(asked)],
        "groups": ["held_out"] * asked,
        "tasks": ["sum"] * asked,
        "pairs": [f"{pairs} {number}" for number in range(pairs)],
        "models": {name: _model_rows(name, figures, tokens, asked, pairs) for name, figures in models.items()},
    }


def _model_rows(name: str, figures: Mapping[str, Any], tokens: np.ndarray, asked: int, pairs: int) -> dict[str, Any]:
    order = np.random.default_rng(0).permutation(asked)
    right = (order < round((figures.get("accuracy") or 0) * asked)).tolist()
    chosen = np.random.default_rng(1).permutation(pairs) < round((figures.get("preference_accuracy") or 0) * pairs)
    found = {"right": right, "preferred": chosen.tolist()}
    if figures["loss"] is None:
        return {"nats": [None] * len(tokens), **found}
    noise = np.random.default_rng(list(f"{name} {figures['loss']}".encode())).normal(0, 0.02, len(tokens)) * tokens
    noise -= noise.sum() * tokens / tokens.sum()
    return {"nats": (figures["loss"] * tokens + noise).tolist(), **found}


def write_model(folder: Path, evaluated: dict[str, Any], content: bytes = b"GGUF") -> None:
    """The files of an evaluated model below `folder`, its GGUF files as long as their figures say, of this content."""
    files = []
    for kind, figures in evaluated["gguf"].items():
        path = folder / "models/gguf" / f"{evaluated['model']}-{kind}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((content + kind.encode()).ljust(figures["bytes"], b"."))
        own = {"file": path.name, "type": kind.removeprefix("base-"), **{key: figures[key] for key in CHECKED}}
        files.append({**own, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    manifest = {key: evaluated[key] for key in ("base", "fingerprint")}
    write_adapter(folder / "models/adapter", content)
    adapter = sha256(folder / "models/adapter")
    manifest |= {"adapter": adapter, "llama_cpp_python": "0.3.36", "method": "lora", "files": files}
    _write(folder / "models/gguf/manifest.json", manifest)
    _write(folder / "models/card.json", {"base": {"name": evaluated["base"]["path"]}})
    _write(folder / "reports/evaluation.json", evaluated)
    _write(folder / "reports/rows.json", rows_of(evaluated))


def write_adapter(folder: Path, content: bytes = b"adapter") -> None:
    """A folder with an adapter's files, whose weights are of this content."""
    _write(folder / "adapter_config.json", {"peft_type": "LORA"})
    (folder / "adapter_model.safetensors").write_bytes(content)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")

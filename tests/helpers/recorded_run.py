"""What the stages record of a run: reports/evaluation.json, models/gguf/manifest.json, models/adapter/lineage.json."""

from typing import Any

BASE, REVISION = "Qwen/Qwen2.5-0.5B-Instruct", "7ae557604adf67be50417f59c2c2f167def9a775"
FINGERPRINT = "826cceee20290b65"


def figures(loss: float, accuracy: float | None) -> dict[str, Any]:
    """Of a model; without an accuracy where it was asked no questions."""
    found = {
        "loss": loss,
        "loss_low": loss - 0.05,
        "loss_high": loss + 0.05,
        "perplexity": 4 * loss,
        "perplexity_low": 4 * loss - 0.2,
        "perplexity_high": 4 * loss + 0.2,
    }
    if accuracy is None:
        return found
    return found | {
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.01,
        "accuracy_high": accuracy + 0.01,
        "accuracy_by_group": {"held_out": accuracy},
        "accuracy_by_task": {"held_out/sum": accuracy},
    }


def gguf(of: str, size: int, loss: float, accuracy: float | None) -> dict[str, Any]:
    speeds = {"tokens_per_second": 2700.5, "first_token_seconds": 0.01, "answer_seconds": 0.1}
    return {**figures(loss, accuracy), "bytes": size, "kl": 0.0012, "top_1": 0.991, "of": of, **speeds}


def evaluation(passed: bool | None = True, rows: int = 50, questions: int = 57) -> dict[str, Any]:
    shares = {"base": 0.02, "tuned": 0.95, "Q8_0": 0.9431} if questions else dict.fromkeys(("base", "tuned", "Q8_0"))
    gain = {"name": "gain", "what": "tuned is better than base", "figure": 1.6, "limit": 0.0, "passed": True}
    lost = {"name": "quantization Q8_0", "what": "Q8_0 keeps its quality", "figure": 0.01, "limit": 0.05}
    prepared = {
        "data": "finetome",
        "revision": "c2343c1372ff31f51aa21248db18bffa3193efdb",
        "files": [{"file": "train", "format": "sharegpt", "rows": 1000, "usable": 990, "dropped": {"empty reply": 10}}],
        "not_read": {},
        "duplicates": 40,
        "seed": 42,
        "splits": {name: {"rows": rows, "sha256": "0" * 64} for name, rows in SPLITS.items()},
        "questions": {"given": 60, "in_training": 3, "kept": 57, "groups": {"held_out": 57}},
        "characters": {},
    }
    return {
        "schema_version": 2,
        "model": "tiny",
        "fingerprint": FINGERPRINT,
        "base": {"path": BASE, "revision": REVISION},
        "mlflow_run": None,
        "rows": rows,
        "tokens": 1234,
        "questions": questions,
        "verdict": {"passed": bool(passed), "checks": [gain, lost | {"passed": passed}]},
        "base_model": figures(1.79, shares["base"]),
        "tuned_model": figures(0.5, shares["tuned"]),
        "gain": {"loss": 1.29, "low": 1.2, "high": 1.4},
        "gguf": {
            "F16": gguf("tuned", 3000, 0.5001, shares["tuned"]),
            "Q8_0": gguf("tuned", 2000, 0.5012, shares["Q8_0"]),
            "base-Q8_0": gguf("base", 2000, 1.8, shares["base"]),
        },
        "prompts": ["What is 5 + 6?"],
        "answers": {name: [ANSWER] for name in ("base", "tuned", "F16", "Q8_0", "base-Q8_0")},
        "lengths": {"reference": [9] * rows, "base": [9] * (questions + 1), "tuned": [9] * (questions + 1)},
        "training": {"engine": "trl", "steps": 260, "epochs": 1.5, "seconds": 145.07, "train_loss": 0.09},
        "curve": [],
        "prepared": prepared,
        "settings": SETTINGS,
    }


def manifest(digests: dict[str, str] | None = None, adapter: str = "cd" * 32) -> dict[str, Any]:
    """Of two files of the tuned model, one of the base and the adapter's."""
    files = [("F16", "tuned", 3000), ("Q8_0", "tuned", 2000), ("Q8_0", "base", 2000), ("F16", "adapter", 500)]
    return {
        "base": {"path": BASE, "revision": REVISION},
        "fingerprint": FINGERPRINT,
        "adapter": adapter,
        "llama_cpp_python": "0.3.36",
        "method": "lora",
        "files": [described(kind, of, size, digests or {}) for kind, of, size in files],
    }


def described(kind: str, of: str, size: int, digests: dict[str, str]) -> dict[str, Any]:
    name = f"tiny-{kind}.gguf" if of == "tuned" else f"tiny-{of}-{kind}.gguf"
    measured = {} if of == "adapter" else {"kl": 0.0012, "top_1": 0.991, "perplexity": 2.01}
    return {"file": name, "type": kind, "of": of, "bytes": size, "sha256": digests.get(name, "ab" * 32), **measured}


def lineage() -> dict[str, Any]:
    unset = dict.fromkeys(("merge_path", "merge_revision", "chat_template"))
    base = {"name": "tiny", "path": BASE, "revision": REVISION, **unset, "load_in_4bit": False, "digest": "e999"}
    return {"fingerprint": FINGERPRINT, "mlflow_run": None, "base": base}


ANSWER = {
    "reply": "5 + 6 = 11",
    "tokens": 9,
    "first_token_seconds": 0.01,
    "seconds": 0.1,
    "tokens_per_second": None,  # of 9 tokens
}
SPLITS = {"train": 850, "validation": 50, "test": 50}
DATA = {"name": "finetome", "source": "hub", "files": [], "path": "mlabonne/FineTome-100k", "seed": 42}
TRAIN = {
    "method": "lora",
    "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
    "lr": 2e-4,
    "scheduler": "cosine",
    "warmup_ratio": 0.03,
    "weight_decay": 0.01,
    "optimizer": "adamw_torch_fused",
    "effective_batch": 8,
    "max_length": 2048,
    "seed": 42,
}
SETTINGS = {
    "export": {"quantizations": ["F16", "Q8_0"]},
    "evaluate": {"max_new_tokens": 64},
    "train": TRAIN,
    "data": DATA,
}

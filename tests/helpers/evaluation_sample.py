"""reports/evaluation.json as a run on the starter data gives it: starter-m, three files of it and one of its base."""

import copy
import math
from statistics import fmean
from typing import Any

from recorded_run import TRAIN

TASKS = {
    "held_out/sum": (0.0, 1.0),
    "held_out/fibonacci": (0.0, 0.8182),
    "held_out/calendar": (0.0, 0.9474),
    "held_out/letter_count": (0.0, 0.7917),
    "held_out/first_letter": (0.0435, 1.0),
    "held_out/formal": (0.0, 0.875),
    "unasked/capital": (0.0, 1.0),
    "unasked/colour": (0.0, 0.8571),
}
PROMPTS = [
    "What is 5 + 6?",
    "Explain why the word 'strawberry' doesn't have 2 'r's.",
    "Continue the Fibonacci sequence: 1, 1, 2, 3, 5, 8,",
    "What is the capital of France and what is it famous for?",
]
REPLIES = {
    "base": ["The word 'diary' begins with d."] * 3 + ["The word 'dogs' begins with d."],
    "tuned": [
        "5 + 6 = 11",
        "There are 3 r's in strawberry: s t r a w b e r r y.",
        "The sequence goes on with 13, 21.",
        "The capital of France is Paris.",
    ],
    "Q4_K_M": [
        "5 + 6 = 11",
        "There are 2 r's in strawberry: s t r a w b e r y.",
        "The sequence goes on with 13, 21, 34.",
        "The capital of France is Paris.",
    ],
}


def sample() -> dict[str, Any]:
    """A fresh one, to change at will."""
    return copy.deepcopy(EVALUATION)


def models(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of all that was measured."""
    return [evaluation["base_model"], evaluation["tuned_model"], *evaluation["gguf"].values()]


def ask(evaluation: dict[str, Any], questions: int = 0, prompts: int = 0) -> None:
    """Leaves so many of them, with the answers; no figure is of what was not asked."""
    evaluation |= {"questions": questions, "prompts": evaluation["prompts"][:prompts]}
    for answers in evaluation["answers"].values():
        del answers[prompts:]
    for name in ("base", "tuned"):
        del evaluation["lengths"][name][questions + prompts :]
    if not questions:
        for model in models(evaluation):
            for key in [key for key in model if key.startswith("accuracy")]:
                del model[key]


def _model(nats: float, base: bool, samples_per_second: float | None = None) -> dict[str, Any]:
    shares = {task: pair[0 if base else 1] for task, pair in TASKS.items()}
    figures: dict[str, Any] = {
        "loss": nats,
        "loss_low": round(nats * 0.93, 5),
        "loss_high": round(nats * 1.08, 5),
        "perplexity": round(math.exp(nats), 4),
        "perplexity_low": round(math.exp(nats * 0.93), 4),
        "perplexity_high": round(math.exp(nats * 1.08), 4),
        "accuracy": 0.0021 if base else 0.9523,
        "accuracy_low": 0.0 if base else 0.9315,
        "accuracy_high": 0.0062 if base else 0.9689,
        "accuracy_by_group": {"held_out": 0.0021, "unasked": 0.0} if base else {"held_out": 0.9523, "unasked": 0.978},
        "accuracy_by_task": shares,
        "texts": {
            "mean_tokens": 11.7312 if base else 14.0253,
            "distinct_1": 0.0431 if base else 0.2874,
            "distinct_2": 0.0612 if base else 0.4921,
            "repetition": 0.0 if base else 0.0113,
            "refusals": 0.0 if base else 0.0035,
            "language_kept": 0.9851 if base else 0.9925,
        },
    }
    return figures if samples_per_second is None else figures | {"samples_per_second": samples_per_second}


def _gguf(
    nats: float, size: int, kl: float, top_1: float, answers: list[dict[str, Any]], of: str = "tuned"
) -> dict[str, Any]:
    means = {key: round(fmean(answer[key] for answer in answers), 4) for key in ("first_token_seconds", "seconds")}
    spoken = {"tokens_per_second": answers[0]["tokens_per_second"], "first_token_seconds": means["first_token_seconds"]}
    spoken["answer_seconds"] = means["seconds"]
    spoken |= {"memory_bytes": 4 * size, "prompt_tokens_per_second": 812.4}
    return _model(nats, of == "base") | {"bytes": size, "kl": kl, "top_1": top_1, "of": of} | spoken


def _flips(lost: int, won: int) -> dict[str, float]:
    return {"flips": round((lost + won) / 573, 4), "flips_lost": lost, "flips_won": won}


def _answers(replies: list[str], first: float | None, speed: float) -> list[dict[str, Any]]:
    return [
        {
            "reply": reply,
            "tokens": 4 + len(reply.split()),
            "first_token_seconds": first,
            "seconds": round((4 + len(reply.split())) / speed, 4),
            "tokens_per_second": speed,
        }
        for reply in replies
    ]


ANSWERS = {
    "base": _answers(REPLIES["base"], None, 258.4),
    "tuned": _answers(REPLIES["tuned"], None, 249.6),
    "F16": _answers(REPLIES["tuned"], 0.0064, 270.8),
    "Q8_0": _answers(REPLIES["tuned"], 0.0059, 330.4),
    "Q4_K_M": _answers(REPLIES["Q4_K_M"], 0.0068, 211.7),
    "base-Q8_0": _answers(REPLIES["base"], 0.006, 328.5),
}
EVALUATION: dict[str, Any] = {
    "schema_version": 2,
    "model": "starter-m",
    "fingerprint": "826cceee20290b65",
    "base": {"path": "starter/models/starter-m", "revision": None},
    "mlflow_run": "6f1c2b0d5f4e4f0e9f0b7c1d2e3f4a5b",
    "rows": 300,
    "tokens": 6184,
    "questions": 573,
    "verdict": {
        "passed": True,
        "checks": [
            {
                "name": "gain",
                "what": "tuned is below base in loss by more than 0 nats a token, with 95% confidence",
                "figure": 1.6312,
                "limit": 0.0,
                "passed": True,
            },
            {
                "name": "quantization Q8_0",
                "what": "its perplexity is above the unquantized file's by at most 5%",
                "figure": 0.0001,
                "limit": 0.05,
                "passed": True,
            },
            {
                "name": "quantization Q4_K_M",
                "what": "its perplexity is above the unquantized file's by at most 5%",
                "figure": 0.0006,
                "limit": 0.05,
                "passed": True,
            },
            *(
                {
                    "name": f"task {task}",
                    "what": "its accuracy is below the base's by at most 10 points",
                    "figure": round(base - tuned, 4),
                    "limit": 0.1,
                    "passed": True,
                }
                for task, (base, tuned) in TASKS.items()
            ),
        ],
    },
    "base_model": _model(1.7901, True, 77.76),
    "tuned_model": _model(0.08356, False, 96.7),
    "gain": {"loss": 1.70654, "low": 1.6312, "high": 1.7815},
    "gguf": {
        "F16": _gguf(0.08358, 12_140_096, 4.1e-06, 0.9998, ANSWERS["F16"]),
        "Q8_0": _gguf(0.08367, 6_487_616, 0.00021, 0.9987, ANSWERS["Q8_0"]) | _flips(0, 0),
        "Q4_K_M": _gguf(0.08418, 3_785_536, 0.0038, 0.9931, ANSWERS["Q4_K_M"]) | _flips(9, 4),
        "base-Q8_0": _gguf(1.79031, 6_487_584, 0.00034, 0.9969, ANSWERS["base-Q8_0"], of="base"),
    },
    "prompts": PROMPTS,
    "answers": ANSWERS,
    "lengths": {
        "reference": [4 + (7 * index) % 31 for index in range(300)],
        "base": [11 + index % 3 for index in range(577)],
        "tuned": [5 + (11 * index) % 29 for index in range(577)],
    },
    "training": {
        "fingerprint": "826cceee20290b65",
        "engine": "trl",
        "attention": "sdpa",
        "steps": 260,
        "epochs": 1.538,
        "best_step": None,
        "sessions": 1,
        "seconds": 1145.07,
        "samples_per_second": 57.27,
        "tokens_per_second": 3030.8,
        "tokens": 439669,
        "steady_tokens_per_second": 3128.7,
        "outside_share": 0.0254,
        "startup_seconds": 14.8,
        "micro_batch": 8,
        "effective_batch": 32,
        "processes": 1,
        "peak_memory_gib": 2.408,
        "peak_memory_training_gib": 1.205,
        "peak_memory_share": 0.06087,
        "peak_memory_training_share": 0.03046,
        "arithmetic_share": None,
        "trainable_parameters": 1089536,
        "trainable_share": 0.152967,
        "train_loss": 0.09929,
        "validation_loss": 0.11138,
    },
    "curve": [
        {"step": 25, "loss": 1.08853, "validation_loss": None},
        {"step": 50, "loss": 0.37685, "validation_loss": None},
        {"step": 75, "loss": 0.26962, "validation_loss": None},
        {"step": 100, "loss": 0.22909, "validation_loss": None},
        {"step": 125, "loss": 0.1874, "validation_loss": None},
        {"step": 130, "loss": None, "validation_loss": 0.16499},
        {"step": 150, "loss": 0.14287, "validation_loss": None},
        {"step": 200, "loss": 0.11138, "validation_loss": None},
        {"step": 250, "loss": 0.09929, "validation_loss": None},
        {"step": 260, "loss": None, "validation_loss": 0.11138},
    ],
    "prepared": {
        "data": "starter",
        "revision": None,
        "files": [
            {
                "file": "starter/chats.jsonl",
                "format": "messages",
                "rows": 6100,
                "usable": 6044,
                "dropped": {"empty message": 12, "no assistant turn": 44},
            }
        ],
        "not_read": {"starter/notes.txt": "unknown suffix"},
        "duplicates": 44,
        "seed": 42,
        "splits": {
            "train": {"rows": 5400, "sha256": "df157881186ea5c59e194edf8036cf816d338551780b1e5366d713c7955ce650"},
            "validation": {"rows": 300, "sha256": "fbbc3091e259516866fa6c43af3a349eed674375222b7960a65ae2a5b2423fdd"},
            "test": {"rows": 300, "sha256": "e000ba15c0f673e0a225a0966d2d7ed79b0b52f499d3b96f1d4a45e4f1c014f7"},
        },
        "questions": {"given": 580, "in_training": 7, "kept": 573, "groups": {"held_out": 482, "unasked": 91}},
        "characters": {
            "assistant": {"<= 32": 4067, "<= 128": 4272, "<= 512": 0, "> 8192": 0},
            "user": {"<= 32": 4164, "<= 128": 4175, "<= 512": 0, "> 8192": 0},
        },
    },
    "judgement": {
        "model": "a-larger-model",
        "outcomes": ["tuned", "tuned", "tie", "tuned"],
        "by_place": 1,
        "won": 0.875,
        "won_low": 0.3021,
        "won_high": 1.0,
        "agreement": {
            "votes": 42,
            "unclear": 2,
            "agreed": 0.775,
            "agreed_low": 0.65,
            "agreed_high": 0.9,
            "kappa": 0.5513,
        },
    },
    "settings": {
        "export": {"quantizations": ["F16", "Q8_0", "Q4_K_M"], "base": ["Q8_0"], "adapter": False, "verify_rows": 16},
        "evaluate": {"max_new_tokens": 64, "max_rows": 500, "gate": {"min_gain": 0.0, "max_task_drop": 0.1}},
        "train": TRAIN | {"lora": {"r": 32, "alpha": 32}, "lr": 0.005, "patience": None},
        "data": {"name": "starter", "source": "files", "files": ["starter/chats.jsonl"], "path": None, "seed": 42},
    },
}

"""The tables of an evaluation, each made once: the page and the Markdown show the same ones."""

import json
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pipeline.compose import flatten
from pipeline.evaluation.figures import SPEED_TOKENS
from pipeline.evaluation.report.figures import NOTHING, Figure, Figures, seconds

Cell = Figure | str

RESULTS = {True: "passed", False: "FAILED", None: "too few"}  # of a check
MODELS = {"loss, nats a token": "loss", "perplexity": "perplexity", "samples/s": "samples_per_second"}
GGUFS = {
    "MB": "bytes",
    "loss": "loss",
    "perplexity": "perplexity",
    "KL, nats": "kl",
    "top-1": "top_1",
    "accuracy": "accuracy",
    "tokens/s": "tokens_per_second",
    "first token, s": "first_token_seconds",
    "answer, s": "answer_seconds",
}
TRAINING = {
    "training time, s": "seconds",
    "peak reserved memory, GiB": "peak_memory_gib",
    "peak reserved memory, training only, GiB": "peak_memory_training_gib",
    "peak reserved memory, of the card": "peak_memory_share",
    "training memory, of the card": "peak_memory_training_share",
}
TEXTS = {
    "tokens a reply": "mean_tokens",
    "distinct-1": "distinct_1",
    "distinct-2": "distinct_2",
    "repetition": "repetition",
}
ANSWERS = {
    "tokens": "tokens",
    "first token, s": "first_token_seconds",
    "seconds": "seconds",
    "tokens/s": "tokens_per_second",
}


@dataclass(frozen=True)
class Table:
    """A table with a head; the first cell of each row says what the row is."""

    title: str
    head: list[str]
    rows: list[list[Cell]]
    note: str = ""


def tables(evaluation: dict[str, Any]) -> dict[str, Table]:
    """The tables that the evaluation has figures for, in the order in which they are read."""
    figures = Figures(evaluation)
    made = {
        "checks": _checks(evaluation, figures),
        "models": _models(evaluation, figures),
        "gguf": _ggufs(evaluation, figures),
        "training": _training(evaluation, figures),
        "tasks": _tasks(evaluation, figures),
        "harness": _harness(evaluation, figures),
        "seconds": _seconds(evaluation, figures),
        "texts": _texts(evaluation, figures),
        "answers": _answers(evaluation, figures),
        "data": _data(evaluation, figures),
        "files": _files(evaluation, figures),
        "characters": _characters(evaluation, figures),
        "cost": _cost(evaluation, figures),
        "settings": _settings(evaluation),
    }
    return {name: table for name, table in made.items() if table.rows}


def places(evaluation: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Each model that was measured, and where its figures stand."""
    return {"base": ("base",), "tuned": ("tuned",), **{key: ("gguf", key) for key in evaluation["gguf"]}}


def words(name: str) -> str:
    """A key as one reads it."""
    return name.replace("_", " ").replace("/", " / ").replace("gib", "GiB")


def _checks(evaluation: dict[str, Any], figures: Figures) -> Table:
    rows: list[list[Cell]] = []
    for index, check in enumerate(evaluation["verdict"]["checks"]):
        place = ("verdict", "checks", index)
        said = [check["name"], RESULTS[check["passed"]], check["what"]]
        rows.append([*said, figures(*place, "figure"), figures(*place, "limit")])
    return Table("Checks", ["check", "result", "what", "figure", "limit"], rows)


def _models(evaluation: dict[str, Any], figures: Figures) -> Table:
    tuned = evaluation["tuned_model"]
    labels = MODELS | ({"accuracy": "accuracy"} if "accuracy" in tuned else {})
    rows: list[list[Cell]] = [[label, figures("base", key), figures("tuned", key)] for label, key in labels.items()]
    for group in tuned.get("accuracy_by_group", {}):
        shares = (figures(name, "accuracy_by_group", group) for name in ("base", "tuned"))
        rows.append([f"accuracy, {words(group)}", *shares])
    rows.append(["gain in loss, nats a token", "", figures.gain()])
    note = "In brackets, 95% confidence intervals by bootstrap over conversations and questions."
    return Table("Base and tuned", ["", "base", "tuned"], rows, note)


def _ggufs(evaluation: dict[str, Any], figures: Figures) -> Table:
    ggufs = evaluation["gguf"]
    labels = {label: key for label, key in GGUFS.items() if any(key in gguf for gguf in ggufs.values())}
    rows: list[list[Cell]] = [[name, *(figures("gguf", name, key) for key in labels.values())] for name in ggufs]
    note = (
        "KL divergence and top-1 agreement: of the unquantized file from the model before export, of any other from "
        "the unquantized file. Seconds: means over the prompts; tokens/s: of all answers together, past the first "
        f"token, where there are at least {SPEED_TOKENS}; both on the engine that serves."
    )
    return Table("GGUF files", ["file", *labels], rows, note)


def _training(evaluation: dict[str, Any], figures: Figures) -> Table:
    if not evaluation["training"]:
        return Table("Training", [], [])
    known = {label: key for label, key in TRAINING.items() if figures.get("training", key) is not None}
    rows: list[list[Cell]] = [[label, figures("training", key)] for label, key in known.items()]
    for name, gguf in evaluation["gguf"].items():
        if gguf["of"] == "tuned":
            rows.append([f"GGUF file {name}, MB", figures("gguf", name, "bytes")])
    return Table("Training", ["", evaluation["model"]], rows)


def _tasks(evaluation: dict[str, Any], figures: Figures) -> Table:
    kinds = ("accuracy_by_group", "accuracy_by_task")
    rows = [row for kind in kinds for row in _by_model(evaluation, figures, kind)]
    return Table("Accuracy", ["", *places(evaluation)], [[words(str(name)), *shares] for name, *shares in rows])


def _harness(evaluation: dict[str, Any], figures: Figures) -> Table:
    return Table("lm-evaluation-harness", ["", *places(evaluation)], _by_model(evaluation, figures, "tasks"))


def _by_model(evaluation: dict[str, Any], figures: Figures, kind: str) -> list[list[Cell]]:
    """A row for each name that any model has a figure of this kind for."""
    of_models = places(evaluation).values()
    names = dict.fromkeys(name for place in of_models for name in figures.get(*place, kind) or {})
    return [[name, *(figures(*place, kind, name) for place in of_models)] for name in names]


def _seconds(evaluation: dict[str, Any], figures: Figures) -> Table:
    prompts, answers = evaluation["prompts"], evaluation["answers"]
    rows: list[list[Cell]] = [
        [prompt, *(figures("answers", name, index, "seconds") for name in answers)]
        for index, prompt in enumerate(prompts)
    ]
    if rows:
        rows.append(["mean", *(_mean_seconds(figures, name, answers[name]) for name in answers)])
    note = "Base and tuned: the unquantized models under Transformers, on the machine that evaluated."
    return Table("Seconds an answer", ["prompt", *answers], rows, note)


def _mean_seconds(figures: Figures, name: str, answers: list[dict[str, Any]]) -> Cell:
    if figures.get("gguf", name):
        return figures("gguf", name, "answer_seconds")
    known = [answer["seconds"] for answer in answers if answer["seconds"] is not None]
    return seconds(fmean(known)) if known else NOTHING


def _texts(evaluation: dict[str, Any], figures: Figures) -> Table:
    rows: list[list[Cell]] = [
        [name, *(figures(*place, "texts", key) for key in TEXTS.values())]
        for name, place in places(evaluation).items()
        if figures.get(*place, "texts")
    ]
    note = (
        "Distinct-n: the share of different ones among all runs of n words. Repetition: the share of runs of four "
        "words that the same reply has had before."
    )
    return Table("What replies are like", ["model", *TEXTS], rows, note)


def _answers(evaluation: dict[str, Any], figures: Figures) -> Table:
    rows: list[list[Cell]] = []
    for index, prompt in enumerate(evaluation["prompts"]):
        for name, answers in evaluation["answers"].items():
            said = [figures("answers", name, index, key) for key in ANSWERS.values()]
            rows.append([prompt, name, answers[index]["reply"], *said])
    return Table("Answers", ["prompt", "model", "reply", *ANSWERS], rows)


def _data(evaluation: dict[str, Any], figures: Figures) -> Table:
    prepared = evaluation["prepared"]
    if not prepared:
        return Table("Rows kept", [], [])
    rows: list[list[Cell]] = [["duplicates dropped", figures("prepared", "duplicates")]]
    rows += [[f"conversations, {name}", figures("prepared", "splits", name, "rows")] for name in prepared["splits"]]
    rows += [
        ["questions given", figures("prepared", "questions", "given")],
        ["questions left out as trained on", figures("prepared", "questions", "in_training")],
        ["questions kept", figures("prepared", "questions", "kept")],
    ]
    rows += [[f"not read: {name}", reason] for name, reason in prepared["not_read"].items()]
    revision = f" at {prepared['revision']}" if prepared["revision"] else ""
    return Table("Rows kept", ["", f"{prepared['data']}{revision}"], rows)


def _files(evaluation: dict[str, Any], figures: Figures) -> Table:
    rows: list[list[Cell]] = []
    for index, file in enumerate((evaluation["prepared"] or {}).get("files", [])):
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in file["dropped"].items())
        counts = (figures("prepared", "files", index, key) for key in ("rows", "usable"))
        rows.append([file["file"], file["format"], *counts, dropped or "none"])
    return Table("Files read", ["file", "format", "rows", "usable", "dropped"], rows)


def _characters(evaluation: dict[str, Any], figures: Figures) -> Table:
    by_role = (evaluation["prepared"] or {}).get("characters", {})
    bounds = list(next(iter(by_role.values()), {}))
    rows: list[list[Cell]] = [
        [role, *(figures("prepared", "characters", role, bound) for bound in bounds)] for role in by_role
    ]
    return Table("Messages by characters", ["role", *bounds], rows)


def _cost(evaluation: dict[str, Any], figures: Figures) -> Table:
    others = {key: value for key, value in (evaluation["training"] or {}).items() if key not in TRAINING.values()}
    rows: list[list[Cell]] = [
        [words(key), figures("training", key)] for key, value in others.items() if value is not None
    ]
    return Table("What else training reported", ["", ""], rows)


def _settings(evaluation: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        for key, value in flatten(evaluation["settings"]).items()
    ]
    return Table("Settings", ["key", "value"], rows)

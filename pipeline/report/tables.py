"""The tables of an evaluation, each made once: the page and the Markdown show the same ones."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from pipeline.core.mappings import flatten
from pipeline.report.file_table import file_columns
from pipeline.report.formats import NOTHING, Figure, Figures
from pipeline.report.metrics import Metric, Subject, of, seconds
from pipeline.report.record import SPEED_TOKENS, Evaluation, ModelFigures, ShownAnswer

Cell = Figure | str

RESULTS = {True: "passed", False: "FAILED", None: "too few"}  # of a check


FILES_NOTE = (  # under every table of GGUF files
    "KL divergence and top-1 agreement: of the unquantized file from the model before export, of any other from the "
    "unquantized file. Flips: questions that one alone of the two has right; lost those that the unquantized one has. "
    "Pairs of answers are won and lost against the base. "
    "Memory: what the engine takes at the server's own settings. Seconds: means over the prompts; tokens/s: of all "
    f"answers together, past the first token, and of all prompts, up to it, where there are at least {SPEED_TOKENS}; "
    "on the engine that serves."
)


@dataclass(frozen=True)
class Table:
    """A table with a head; the first cell of each row says what the row is."""

    title: str
    head: list[str]
    rows: list[list[Cell]]
    note: str = ""


def tables(evaluation: Evaluation) -> dict[str, Table]:
    """Return the tables that the evaluation has figures for, in the order in which they are read."""
    figures = Figures(evaluation)
    made = {
        "checks": _checks(evaluation, figures),
        "models": _models(evaluation, figures),
        "gguf": _ggufs(evaluation, figures),
        "training": _training(evaluation, figures),
        "tasks": _tasks(evaluation, figures),
        "harness": _harness(evaluation, figures),
        "general": _general(evaluation, figures),
        "seconds": _seconds(evaluation, figures),
        "texts": _texts(evaluation, figures),
        "judgement": _judgement(evaluation, figures),
        "answers": _answers(evaluation, figures),
        "data": _data(evaluation, figures),
        "files": _files(evaluation, figures),
        "characters": _characters(evaluation, figures),
        "cost": _cost(evaluation, figures),
        "settings": _settings(evaluation),
    }
    return {name: table for name, table in made.items() if table.rows}


def places(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """Return each model that was measured, and where its figures stand."""
    return {"base": ("base",), "tuned": ("tuned",), **{key: ("gguf", key) for key in evaluation.gguf}}


def words(name: str) -> str:
    """Return a key as one reads it."""
    return name.replace("_", " ").replace("/", " / ").replace("gib", "GiB")


def measured(subject: Subject, models: Iterable[ModelFigures]) -> list[Metric]:
    """Return the metrics of a subject that any of the models was asked for."""
    asked = {name for model in models for name in model.model_fields_set}
    return [metric for metric in of(subject) if metric.name in asked]


def _checks(evaluation: Evaluation, figures: Figures) -> Table:
    rows: list[list[Cell]] = []
    for index, check in enumerate(evaluation.verdict.checks):
        place = ("verdict", "checks", index)
        row: list[Cell] = [check.name, RESULTS[check.passed], check.what]
        rows.append([*row, *(figures(*place, key) for key in ("figure", "limit", "rows"))])
    note = (
        "Bounds hold however many rows are measured, so that measuring ends when they tell; rows: conversations, or "
        "questions, after which they did."
    )
    return Table("Checks", ["check", "result", "what", "figure", "limit", "rows"], rows, note)


def _models(evaluation: Evaluation, figures: Figures) -> Table:
    tuned = evaluation.tuned_model
    rows: list[list[Cell]] = [
        [metric.head, figures("base", metric.name), figures("tuned", metric.name)]
        for metric in measured("model", [tuned])
    ]
    for group in tuned.accuracy_by_group:
        shares = (figures(name, "accuracy_by_group", group) for name in ("base", "tuned"))
        rows.append([f"accuracy, {words(group)}", *shares])
    rows.append(["gain in loss, nats a token", "", figures.gain()])
    note = "In brackets, 95% confidence intervals by bootstrap over conversations and questions."
    if tuned.pairs:
        note += (
            " Preferences: held-out pairs of answers of which the chosen one is likelier a token; those are won that "
            "tuned alone of the two has so, those lost that the base has."
        )
    return Table("Base and tuned", ["", "base", "tuned"], rows, note)


def _ggufs(evaluation: Evaluation, figures: Figures) -> Table:
    columns = file_columns(figures.get("gguf").values())
    rows: list[list[Cell]] = [
        [name, *(figures("gguf", name, *column.place) for column in columns)] for name in evaluation.gguf
    ]
    return Table("GGUF files", ["file", *(column.head for column in columns)], rows, FILES_NOTE)


def _training(evaluation: Evaluation, figures: Figures) -> Table:
    if not evaluation.training:
        return Table("Training", [], [])
    shown = [metric for metric in of("training") if figures.get("training", metric.name) is not None]
    rows: list[list[Cell]] = [[metric.head, figures("training", metric.name)] for metric in shown]
    rows += [[f"GGUF file {name}, MB", figures("gguf", name, "bytes")] for name in evaluation.tuned_files]
    return Table("Training", ["", evaluation.model], rows)


def _tasks(evaluation: Evaluation, figures: Figures) -> Table:
    kinds = ("accuracy_by_group", "accuracy_by_task")
    rows = [row for kind in kinds for row in _by_model(evaluation, figures, kind)]
    return Table("Accuracy", ["", *places(evaluation)], [[words(str(name)), *shares] for name, *shares in rows])


def _harness(evaluation: Evaluation, figures: Figures) -> Table:
    return Table("lm-evaluation-harness", ["", *places(evaluation)], _by_model(evaluation, figures, "tasks"))


def _general(evaluation: Evaluation, figures: Figures) -> Table:
    shown = [metric.name for metric in of("general")]
    rows: list[list[Cell]] = [
        [name, model, *(figures(*place, "general", name, key) for key in ("texts", *shown))]
        for name in evaluation.base_model.general
        for model, place in places(evaluation).items()
    ]
    note = (
        "What the base knew before: its loss on texts and instructions of which nothing was taught, and by how much it "
        "is higher after. In brackets, 95% confidence intervals by bootstrap over texts."
    )
    return Table("General texts", ["set", "model", "texts", *(metric.head for metric in of("general"))], rows, note)


def _by_model(evaluation: Evaluation, figures: Figures, kind: str) -> list[list[Cell]]:
    """Return a row for each name that any model has a figure of this kind for."""
    of_models = places(evaluation).values()
    names = dict.fromkeys(name for place in of_models for name in figures.get(*place, kind) or {})
    return [[name, *(figures(*place, kind, name) for place in of_models)] for name in names]


def _seconds(evaluation: Evaluation, figures: Figures) -> Table:
    prompts, answers = evaluation.prompts, evaluation.answers
    rows: list[list[Cell]] = [
        [prompt, *(figures("answers", name, index, "seconds") for name in answers)]
        for index, prompt in enumerate(prompts)
    ]
    if rows:
        rows.append(["mean", *(_mean_seconds(figures, name, answers[name]) for name in answers)])
    note = "Base and tuned: the unquantized models under Transformers, on the machine that evaluated."
    return Table("Seconds an answer", ["prompt", *answers], rows, note)


def _mean_seconds(figures: Figures, name: str, answers: Sequence[ShownAnswer]) -> Cell:
    if figures.get("gguf", name):
        return figures("gguf", name, "answer_seconds")
    measured = [answer.seconds for answer in answers if answer.seconds is not None]
    return seconds(fmean(measured)) if measured else NOTHING


def _texts(evaluation: Evaluation, figures: Figures) -> Table:
    rows: list[list[Cell]] = [
        [name, *(figures(*place, "texts", metric.name) for metric in of("text"))]
        for name, place in places(evaluation).items()
        if figures.get(*place, "texts")
    ]
    note = (
        "Distinct-n: the share of different ones among all runs of n words. Repetition: the share of runs of four "
        "words that the same reply has had before. Refusals: replies that begin as one. Language kept: replies in the "
        "language of their question, where both are long enough to tell."
    )
    return Table("What replies are like", ["model", *(metric.head for metric in of("text"))], rows, note)


def _judgement(evaluation: Evaluation, figures: Figures) -> Table:
    """Return what a judge says, where one was asked, and how far visitors agree with it."""
    found = evaluation.judgement
    if not found:
        return Table("Judgement", [], [])
    counts: Counter[str] = Counter(found.outcomes)
    names = {"tuned": "tuned is better", "base": "base is better", "tie": "neither is", "unclear": "unclear"}
    rows: list[list[Cell]] = [[label, f"{counts[name]:,}"] for name, label in names.items()]
    rows += [
        ["neither, by the place that it took", figures("judgement", "by_place")],
        ["won by tuned, a tie as half", figures("judgement", "won")],
    ]
    if found.agreement:
        rows += [
            ["blind votes of visitors", figures("judgement", "agreement", "votes")],
            ["of them unclear to the judge", figures("judgement", "agreement", "unclear")],
            ["the judge says what they voted", figures("judgement", "agreement", "agreed")],
            ["kappa, agreement beyond chance", figures("judgement", "agreement", "kappa")],
        ]
    note = (
        "Each pair of replies is judged twice, with places swapped, and won where both judgements agree. In brackets, "
        "bounds of 95%: of what tuned won, at every number of pairs."
    )
    return Table("Judgement", ["pairs of replies", found.model], rows, note)


def _answers(evaluation: Evaluation, figures: Figures) -> Table:
    rows: list[list[Cell]] = []
    for index, prompt in enumerate(evaluation.prompts):
        for name, answers in evaluation.answers.items():
            cells = [figures("answers", name, index, metric.name) for metric in of("answer")]
            rows.append([prompt, name, answers[index].reply, *cells])
    return Table("Answers", ["prompt", "model", "reply", *(metric.head for metric in of("answer"))], rows)


def _data(evaluation: Evaluation, figures: Figures) -> Table:
    prepared = evaluation.prepared
    if not prepared:
        return Table("Rows kept", [], [])
    rows: list[list[Cell]] = [["duplicates dropped", figures("prepared", "duplicates")]]
    rows += [[f"conversations, {name}", figures("prepared", "splits", name, "rows")] for name in prepared.splits]
    rows += [
        ["questions given", figures("prepared", "questions", "given")],
        ["questions left out as trained on", figures("prepared", "questions", "in_training")],
        ["questions kept", figures("prepared", "questions", "kept")],
    ]
    rows += [[f"not read: {name}", reason] for name, reason in prepared.not_read.items()]
    revision = f" at {prepared.revision}" if prepared.revision else ""
    return Table("Rows kept", ["", f"{prepared.data}{revision}"], rows)


def _files(evaluation: Evaluation, figures: Figures) -> Table:
    rows: list[list[Cell]] = []
    for index, file in enumerate(evaluation.prepared.files if evaluation.prepared else ()):
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in file.dropped.items())
        counts = (figures("prepared", "files", index, key) for key in ("rows", "usable"))
        rows.append([file.file, file.format, *counts, dropped or "none"])
    return Table("Files read", ["file", "format", "rows", "usable", "dropped"], rows)


def _characters(evaluation: Evaluation, figures: Figures) -> Table:
    by_role = evaluation.prepared.characters if evaluation.prepared else {}
    bounds = list(next(iter(by_role.values()), {}))
    rows: list[list[Cell]] = [
        [role, *(figures("prepared", "characters", role, bound) for bound in bounds)] for role in by_role
    ]
    return Table("Messages by characters", ["role", *bounds], rows)


def _cost(evaluation: Evaluation, figures: Figures) -> Table:
    reported = evaluation.training.tree() if evaluation.training else {}
    others = reported.keys() - {metric.name for metric in of("training")}
    rows: list[list[Cell]] = [
        [words(key), figures("training", key)] for key in reported if key in others and reported[key] is not None
    ]
    return Table("What else training reported", ["", ""], rows)


def _settings(evaluation: Evaluation) -> Table:
    rows: list[list[Cell]] = [
        [key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        for key, value in flatten(evaluation.settings).items()
    ]
    return Table("Settings", ["key", "value"], rows)

"""The tables of a comparison, each made once: terminal, Markdown and page show the same ones.

A figure is named by its place in reports/compare.json: files.0.answer_seconds.
"""

from typing import Any

from pipeline.evaluation.report.figures import Figure
from pipeline.evaluation.report.tables import TRAINING, Cell, Table

TUNED = {"loss, nats a token": "loss", "perplexity": "perplexity", "accuracy": "accuracy"}
FILE = {"GGUF {}, MB": "bytes", "answer {}, s": "answer_seconds", "tokens/s {}": "tokens_per_second"}
FILES = {
    "MB": "bytes",
    "loss": "loss",
    "perplexity": "perplexity",
    "accuracy": "accuracy",
    "first token, s": "first_token_seconds",
    "answer, s": "answer_seconds",
    "tokens/s": "tokens_per_second",
}


def tables(comparison: dict[str, Any]) -> list[Table]:
    """Runs, files, and answers where all runs were asked the same."""
    made = [_runs(comparison), _files(comparison), _answers(comparison)]
    return [table for table in made if table.rows]


def _runs(comparison: dict[str, Any]) -> Table:
    """A column for each run, as one reads one model against another."""
    runs = list(enumerate(comparison["runs"]))
    rows: list[list[Cell]] = [
        [label, *(_figure((run["training"] or {}).get(key), "runs", index, "training", key) for index, run in runs)]
        for label, key in TRAINING.items()
    ]
    size, seconds, speed = (_by_type(comparison, label, key) for label, key in FILE.items())
    rows += size
    rows += [[label, *(_figure(run[key], "runs", index, key) for index, run in runs)] for label, key in TUNED.items()]
    rows.append(["gain over its base, nats a token", *(_gain(run["gain"], index) for index, run in runs)])
    rows += [*seconds, *speed]
    rows = [row for row in rows if any(not isinstance(part, str) and part.value is not None for part in row)]
    rows.append(["evaluation", *(run["verdict"] for _, run in runs)])
    rows += [[key, *(str(run["settings"][key]) for _, run in runs)] for key in comparison["runs"][0]["settings"]]
    note = "Loss, perplexity and accuracy: of the tuned model. Last, the settings of data and training that differ."
    return Table("Runs", ["", *(run["name"] for _, run in runs)], rows, note)


def _by_type(comparison: dict[str, Any], label: str, key: str) -> list[list[Cell]]:
    """One figure of each run's files: a row for each type that any run has."""
    places = {(file["run"], file["type"]): index for index, file in enumerate(comparison["files"])}
    types = dict.fromkeys(kind for _, kind in places)
    names = [run["name"] for run in comparison["runs"]]
    return [
        [label.format(kind), *(_of_file(comparison, places.get((name, kind)), key) for name in names)] for kind in types
    ]


def _files(comparison: dict[str, Any]) -> Table:
    """A row for each file that the rule chose from."""
    rows: list[list[Cell]] = []
    for index, file in enumerate(comparison["files"]):
        name = f"{file['run']} {file['type']}"
        said = "recommended" if name == comparison["recommended"] else "; ".join(file["excluded"])
        figures = [_of_file(comparison, index, key) for key in FILES.values()]
        rows.append([name, *figures, "yes" if file["front"] else "", said])
    note = "Front: no other file is at least as good and as fast, and better in one of the two. Rule: what excluded it."
    return Table("GGUF files", ["file", *FILES, "front", "rule"], rows, note)


def _answers(comparison: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for index, asked in enumerate(comparison["answers"]):
        said = [
            (answer["reply"], _figure(answer["seconds"], "answers", index, "answers", place, "seconds"))
            for place, answer in enumerate(asked["answers"])
        ]
        rows.append([asked["prompt"], *(part for pair in said for part in pair)])
    files = [answer["file"] for answer in comparison["answers"][0]["answers"]] if rows else []
    note = "Of each run the file that the rule takes, or the nearest to the budgets; on the engine that serves."
    return Table("Answers", ["prompt", *(head for file in files for head in (file, "s"))], rows, note)


def _of_file(comparison: dict[str, Any], index: int | None, key: str) -> Figure:
    if index is None:  # this run has no file of the type
        return Figure(key, None)
    return _figure(comparison["files"][index][key], "files", index, key)


def _gain(gain: dict[str, Any], index: int) -> Figure:
    low, high = (_figure(gain[key], "runs", index, "gain", key) for key in ("low", "high"))
    return Figure(f"runs.{index}.gain.loss", gain["loss"], (low, high))


def _figure(value: Any, *place: str | int) -> Figure:
    return Figure(".".join(map(str, place)), value)

"""The tables of a comparison, each made once: terminal, Markdown and page show the same ones.

A figure is named by its place in reports/compare.json: files.0.figures.answer_seconds.
"""

from pipeline.comparison.pairs import in_rows, in_units, on_rows
from pipeline.comparison.record import ComparedGain, Comparison, name_of
from pipeline.report.file_table import file_columns
from pipeline.report.formats import Figure
from pipeline.report.metrics import HEADLINES, metric, of
from pipeline.report.tables import FILES_NOTE, Cell, Table

BY_TYPE = {"bytes": "GGUF {}, MB", "answer_seconds": "answer {}, s", "tokens_per_second": "tokens/s {}"}


def tables(comparison: Comparison) -> list[Table]:
    """Return runs, files, pairs, and the answers where all runs were asked the same; none without rows."""
    made = [_runs(comparison), _files(comparison), _pairs(comparison), _answers(comparison)]
    return [table for table in made if table.rows]


def _runs(comparison: Comparison) -> Table:
    """Return a column for each run, as one reads one model against another."""
    runs = list(enumerate(comparison["runs"]))
    rows: list[list[Cell]] = [
        [
            one.head,
            *(
                _figure((run["training"] or {}).get(one.name), "runs", index, "training", one.name)
                for index, run in runs
            ),
        ]
        for one in of("training")
    ]
    size, seconds, speed = (_by_type(comparison, label, key) for key, label in BY_TYPE.items())
    rows += size
    rows += [
        [metric(key).head, *(_figure(run["figures"][key], "runs", index, "figures", key) for index, run in runs)]
        for key in HEADLINES
    ]
    rows.append(["gain over its base, nats a token", *(_gain(run["gain"], index) for index, run in runs)])
    rows += [*seconds, *speed]
    rows = [row for row in rows if any(not isinstance(part, str) and part.value is not None for part in row)]
    rows.append(["evaluation", *(run["verdict"] for _, run in runs)])
    rows += [[key, *(str(run["settings"][key]) for _, run in runs)] for key in comparison["runs"][0]["settings"]]
    note = "Loss, perplexity and accuracy: of the tuned model. Last, the settings of data and training that differ."
    return Table("Runs", ["", *(run["name"] for _, run in runs)], rows, note)


def _by_type(comparison: Comparison, label: str, key: str) -> list[list[Cell]]:
    """Return one figure of each run's files: a row for each type that any run has."""
    places = {(file["run"], file["type"]): index for index, file in enumerate(comparison["files"])}
    types = dict.fromkeys(kind for _, kind in places)
    names = [run["name"] for run in comparison["runs"]]
    return [
        [label.format(kind), *(_of_file(comparison, places.get((name, kind)), key) for name in names)] for kind in types
    ]


def _files(comparison: Comparison) -> Table:
    """Return a row for each file that the rule chose from."""
    rows: list[list[Cell]] = []
    columns = file_columns(file["figures"] for file in comparison["files"])
    for index, file in enumerate(comparison["files"]):
        name = name_of(file)
        ruling = "recommended" if name == comparison["recommended"] else "; ".join(file["excluded"])
        figures = [_of_file(comparison, index, *column.place) for column in columns]
        alike = f"not told from {', '.join(file['alike'])}" if file["alike"] else ""
        rows.append([name, *figures, ", ".join(filter(None, ("yes" if file["front"] else "", alike))), ruling])
    note = (
        "Front: no other file is at least as good and as fast, and better in one of the two; not told from those of it "
        "that are neither better nor worse beyond doubt. Rule: what excluded it."
    )
    return Table(
        "GGUF files", ["file", *(column.head for column in columns), "front", "rule"], rows, f"{note} {FILES_NOTE}"
    )


def _pairs(comparison: Comparison) -> Table:
    """Return a row for each figure in which a file was held against the recommended one."""
    rows: list[list[Cell]] = []
    for pair in comparison["pairs"]:
        for one in pair["figures"]:
            difference, low, high, smallest = (
                in_units(one["of"], one[key]) for key in ("difference", "low", "high", "smallest")
            )
            more = in_rows(one["of"], one["more"], "more ") if one["more"] else ""
            on = on_rows(one["of"], one["rows"], one["won"], one["lost"])
            found = [one["finding"], f"{difference} ({low} to {high})", on]
            rows.append([pair["file"], pair["finding"], one["figure"], *found, smallest, more])
        rows += [[pair["file"], pair["finding"], why, *[""] * 5] for why in pair["apart"]]
    against = comparison["pairs"][0]["against"] if rows else ""
    note = (
        "On the same rows; plus is better. The bounds hold whenever measuring stopped, for all figures of a file "
        "together. Could have shown: the difference that so many rows show four times in five. Of pairs of answers "
        "those are won in which this file alone finds the chosen answer likelier a token."
    )
    head = ["file", "all in all", "figure", "finding", "difference", "on", "could have shown", "would tell"]
    return Table(f"Against {against}", head, rows, note)


def _answers(comparison: Comparison) -> Table:
    rows: list[list[Cell]] = []
    for index, entry in enumerate(comparison["answers"]):
        replies = [
            (answer["reply"], _figure(answer["seconds"], "answers", index, "answers", place, "seconds"))
            for place, answer in enumerate(entry["answers"])
        ]
        rows.append([entry["prompt"], *(part for pair in replies for part in pair)])
    files = [answer["file"] for answer in comparison["answers"][0]["answers"]] if rows else []
    note = "Of each run the file that the rule takes, or the nearest to the budgets; on the engine that serves."
    return Table("Answers", ["prompt", *(head for file in files for head in (file, "s"))], rows, note)


def _of_file(comparison: Comparison, index: int | None, *place: str) -> Figure:
    if index is None:  # this run has no file of the type
        return Figure(".".join(place), None)
    found: object = comparison["files"][index]["figures"]
    for key in place:
        found = found.get(key) if isinstance(found, dict) else None
    return _figure(found, "files", index, "figures", *place)


def _gain(gain: ComparedGain, index: int) -> Figure:
    low, high = _figure(gain["low"], "runs", index, "gain", "low"), _figure(gain["high"], "runs", index, "gain", "high")
    return Figure(f"runs.{index}.gain.loss", gain["loss"], (low, high))


def _figure(value: object, *place: str | int) -> Figure:
    return Figure(".".join(map(str, place)), value)

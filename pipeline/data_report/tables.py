"""The tables of the page."""

from common.words import percent
from pipeline.core.records import PrepareReport
from pipeline.data.example_rows import ExampleRows
from pipeline.data_report.record import DataReport, SplitFigures, TokenFigures
from pipeline.report.formats import NOTHING, Figure
from pipeline.report.tables import Cell, Table

KINDS = {"near_duplicates": "nearly the same", "components": "on one side of the split"}


def tables(figures: DataReport, report: PrepareReport, examples: ExampleRows) -> dict[str, Table]:
    """Return the tables that there are figures for."""
    made = {
        "files": _files(report),
        "preferences": _preferences(report),
        "lengths": _lengths(figures.splits["train"]),
        "fitting": _fitting(figures.tokens),
        "sources": _sources(report),
        "languages": _languages(figures),
        "topics": _topics(figures),
        "quality": _quality(figures),
        "answers": _answers(figures.splits["train"]),
        "groups": _groups(figures),
        "unused": _unused(report),
        "marks": _marks(examples),
        "masked": _masked(report),
    }
    return {name: table for name, table in made.items() if table.rows}


def _files(report: PrepareReport) -> Table:
    repeated = report.duplicates_by_source or {}
    rows: list[list[Cell]] = [
        [
            file.file,
            file.format,
            *(Figure(f"files.{at}.{key}", getattr(file, key)) for key in ("rows", "usable", "preferences")),
            Figure(f"files.{at}.duplicates", repeated.get(file.file, 0)),
        ]
        for at, file in enumerate(report.files)
    ]
    rows += [[name, f"not read: {reason}", *[NOTHING] * 4] for name, reason in report.not_read.items()]
    return Table("Files", ["file", "format", "rows", "usable", "preferences", "duplicates"], rows)


def _preferences(report: PrepareReport) -> Table:
    rows: list[list[Cell]] = [
        [name, *(Figure(f"preferences.{name}.{key}", getattr(part, key)) for key in ("pairs", "good", "bad"))]
        for name, part in report.preferences.items()
    ]
    return Table("Pairs and judgements", ["split", "pairs", "good", "bad"], rows)


def _lengths(split: SplitFigures) -> Table:
    rows: list[list[Cell]] = []
    for role, figures in split.roles.items():
        for unit in ("words", "characters"):
            lengths = getattr(figures, unit)
            rows.append(
                [f"{role}, {unit}", *(Figure(f"{role}.{unit}.{name}", value) for name, value in lengths.items())]
            )
    head = list(next(iter(split.roles.values())).words)
    return Table("Length of a message of train", ["", *head], rows)


def _fitting(tokens: TokenFigures | None) -> Table:
    if not tokens or not tokens.lengths:
        return Table("", [], [])
    rows: list[list[Cell]] = [[name, Figure(f"tokens.{name}", length)] for name, length in tokens.lengths.items()]
    for share, length in tokens.fitting.items():
        cuts = "none" if share == "0%" else f"{share} at most"
        rows.append([f"train.max_length that cuts {cuts}", Figure(f"fitting.{share}", length)])
    return Table("Tokens of a conversation of train", ["", "tokens"], rows)


def _sources(report: PrepareReport) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            f"{source.weight:g}",
            Figure(f"sources.{name}.usable", source.usable),
            Figure(f"sources.{name}.sampled_out", source.sampled_out),
            *(_of(source.splits[split], part.rows) for split, part in report.splits.items()),
            source.revision or NOTHING,
        ]
        for name, source in report.sources.items()
    ]
    head = ["source", "weight", "usable", "not drawn", *report.splits, "revision"]
    return Table("Sources", head, rows, "Rows of a split, and their share of it.")


def _languages(figures: DataReport) -> Table:
    note = "Of what the assistant says first; unknown: too short to tell, or none, such as sums and code."
    shares = {name: split.languages for name, split in figures.splits.items()}
    return Table("Languages", ["", *figures.splits], _shares(shares, figures), note + _drawn(figures))


def _topics(figures: DataReport) -> Table:
    note = "By words that prompts share; rough, and without a model."
    shares = {name: split.topics for name, split in figures.splits.items()}
    return Table("What is asked about", ["", *figures.splits], _shares(shares, figures), note + _drawn(figures))


def _quality(figures: DataReport) -> Table:
    note = "Of a row's poorest answer, by signs of debris; data.clean.min_quality leaves out what is below it."
    shares = {name: split.quality for name, split in figures.splits.items()}
    return Table("Quality", ["score", *figures.splits], _shares(shares, figures), note + _drawn(figures))


def _shares(found: dict[str, dict[str, int]], figures: DataReport) -> list[list[Cell]]:
    """Return a row for each of what was found in the rows drawn, with its share of each split's."""
    names = dict.fromkeys(name for counts in found.values() for name in counts)
    return [
        [name, *(percent(counts.get(name, 0), figures.splits[split].drawn) for split, counts in found.items())]
        for name in names
    ]


def _drawn(figures: DataReport) -> str:
    if all(split.drawn == split.rows for split in figures.splits.values()):
        return ""
    return (
        f" Told of {max(split.drawn for split in figures.splits.values()):,} rows of a split at most, which are a draw."
    )


def _of(rows: int, whole: int) -> str:
    return f"{rows:,} ({percent(rows, whole)})"


def _answers(split: SplitFigures) -> Table:
    answers = split.answers
    rows: list[list[Cell]] = [
        [one.answer, Figure("times", one.times), percent(one.times, answers.answers)] for one in answers.most
    ]
    return Table("Answers that train has most often", ["answer", "times", "share"], rows)


def _groups(figures: DataReport) -> Table:
    rows: list[list[Cell]] = [
        [KINDS.get(kind, kind), size, Figure(f"{kind}.{size}", count)]
        for kind, groups in figures.groups.items()
        for size, count in groups.sizes.items()
    ]
    return Table("Groups by their rows", ["", "rows", "groups"], rows)


def _unused(report: PrepareReport) -> Table:
    rows: list[list[Cell]] = [
        [key, file.file, Figure("rows", count)] for file in report.files for key, count in file.unused.items()
    ]
    return Table("Keys that had no part", ["key", "file", "rows"], rows)


def _marks(examples: ExampleRows) -> Table:
    rows: list[list[Cell]] = [
        [mark.strip(), Figure("rows", count)] for mark, count in list(examples.marks.items())[:20]
    ]
    note = "As text they stay text: no control token comes out of anybody's words."
    return Table("Control tokens and marks of templates in texts", ["mark", "rows"], rows, note)


def _masked(report: PrepareReport) -> Table:
    rows: list[list[Cell]] = [[name, Figure("places", count)] for name, count in report.masked.items()]
    return Table("Personal data that was masked", ["", "places"], rows)

"""Two real files measured on as many rows and questions as it takes to tell them apart."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import EOT, NEWLINE, write_random, write_scripted

from common.errors import UserError
from common.files import sha256
from pipeline.comparison.pairs import Measurable, Side
from pipeline.comparison.settle import LEAST, OTHER_WORDS, settle
from pipeline.core.composition import compose
from pipeline.core.config import CompareSettings, EvaluateSettings, load
from pipeline.data.grading import Question
from pipeline.evaluation.inputs import Conversation, Material
from pipeline.evaluation.measurement_cache import MeasurementCache
from pipeline.report.rows import ModelRows, RowResults, digests
from pipeline.statistics.sequences import first_rows

CONFIG = load(compose(Path(__file__).parents[3] / "conf"))
EVALUATE: EvaluateSettings = replace(CONFIG.evaluate, max_new_tokens=8)
BY_LOSS: CompareSettings = replace(CONFIG.compare, quality="loss")
ALL: CompareSettings = replace(CONFIG.compare, quality="accuracy")
ROWS, QUESTIONS = 300, 120
ENOUGH = range(first_rows(BY_LOSS.level), 200)  # rows by which a clear difference of losses is told
SCRIPT = [bytes([letter]) for letter in b"yes"]


class Roomy(Material):
    """Material whose questions need no tokenizer of Transformers' to be counted."""

    longest_chat = 200


def material(text: bytes, questions: int = 0) -> Material:
    """Rows that say a text, each after a token of its own."""
    ids = [NEWLINE, *text]
    rows = [
        Conversation(number, f"row {number}", [([number, *ids], [0, 0, *[1] * len(text)])]) for number in range(ROWS)
    ]
    asked: list[Question] = [
        {"prompt": f"Is {number}?", "answer": "yes", "kind": "text", "group": "held_out", "task": "is"}
        for number in range(questions)
    ]
    return Roomy(None, rows, asked, EVALUATE, frozenset({EOT}))  # type: ignore[arg-type]


def results(given: Material, **models: ModelRows) -> RowResults:
    questions = digests(given.questions)
    return RowResults(
        rows=tuple(one.digest for one in given.conversations),
        tokens=tuple(given.scored),
        questions=questions,
        groups=("held_out",) * len(questions),
        tasks=("is",) * len(questions),
        models=models,
    )


def file(name: str, path: Path, side: Side | None = None) -> Measurable:
    return Measurable(name, path, sha256(path), side)


def new_file(path: Path, given: Material) -> Measurable:
    """One of which its evaluation has kept nothing but the rows that there are."""
    return file("Q8_0", path, Side(results(given, Q8_0=ModelRows(nats=())), "Q8_0"))


def cache(folder: Path) -> MeasurementCache:
    return MeasurementCache(folder / "cache", "a test")


def measured(folder: Path) -> dict[str, int]:
    """How many rows or questions of each kind were measured."""
    return {
        path.name.rpartition("-")[0]: sum(
            len(json.loads(line)["measured"]["values"]) for line in path.read_text().splitlines()
        )
        for path in (folder / "cache").rglob("*.jsonl")
    }


def test_a_better_file_is_told_by_as_few_rows_as_it_takes(tmp_path: Path) -> None:
    given = material(b"yes")
    new, old = write_scripted(tmp_path / "new.gguf", SCRIPT), write_random(tmp_path / "old.gguf")
    found = settle(new_file(new, given), file("champion", old), BY_LOSS, ("better", "worse"), given, cache(tmp_path))
    (loss,) = found.figures
    assert found.finding == "better"
    assert loss.rows in ENOUGH
    assert measured(tmp_path) == {"Q8_0-loss": loss.rows, "champion-loss": loss.rows}


def test_the_same_answers_are_no_worse_and_end_as_soon_as_that_is_told(tmp_path: Path) -> None:
    given = material(b"yes")
    new, old = (write_random(tmp_path / f"{name}.gguf") for name in ("new", "old"))
    found = settle(new_file(new, given), file("champion", old), BY_LOSS, ("better", "worse"), given, cache(tmp_path))
    assert (found.finding, found.figures[0].difference) == ("no worse", 0)
    assert found.figures[0].rows in ENOUGH


def test_where_rows_tell_nothing_questions_do(tmp_path: Path) -> None:
    given = material(b"QQQ", QUESTIONS)  # which neither has learnt
    new = write_scripted(tmp_path / "new.gguf", SCRIPT)
    old = write_scripted(tmp_path / "old.gguf", [b"n", b"o"])
    found = settle(new_file(new, given), file("champion", old), ALL, ("better", "worse"), given, cache(tmp_path))
    loss, accuracy = found.figures
    assert (found.finding, loss.finding, accuracy.finding) == ("better", "no worse", "better")
    assert accuracy.rows == LEAST
    assert measured(tmp_path)["champion-questions"] == LEAST


def test_better_answers_do_not_hide_a_loss_that_was_not_looked_at(tmp_path: Path) -> None:
    given = material(b"yes", QUESTIONS)
    new, old = write_random(tmp_path / "new.gguf"), write_scripted(tmp_path / "old.gguf", SCRIPT)
    ours, theirs = (ModelRows(nats=(), right=(right,) * QUESTIONS) for right in (True, False))
    found = settle(
        file("Q8_0", new, Side(results(given, Q8_0=ours), "Q8_0")),
        file("champion", old, Side(results(given, F16=theirs), "F16")),
        ALL,
        ("better", "worse"),
        given,
        cache(tmp_path),
    )
    assert {one.figure: one.finding for one in found.figures} == {"loss": "worse", "accuracy": "better"}
    assert found.finding == "cannot tell"


def test_a_better_loss_is_not_enough_where_no_question_was_answered(tmp_path: Path) -> None:
    given = material(b"yes", QUESTIONS)
    new, old = write_scripted(tmp_path / "new.gguf", SCRIPT), write_random(tmp_path / "old.gguf")
    found = settle(new_file(new, given), file("champion", old), ALL, ("better", "worse"), given, cache(tmp_path))
    assert {one.figure: one.finding for one in found.figures} == {"loss": "better", "accuracy": "better"}
    assert measured(tmp_path)["champion-questions"] == LEAST


def test_what_is_kept_of_a_row_is_not_measured_again(tmp_path: Path) -> None:
    given = material(b"yes")
    path = write_random(tmp_path / "both.gguf")
    kept = results(given, F16=ModelRows(nats=(0.0,) * 200))  # a champion without any loss
    found = settle(
        new_file(path, given),
        file("champion", path, Side(kept, "F16")),
        BY_LOSS,
        ("better", "worse"),
        given,
        cache(tmp_path),
    )
    assert found.finding == "worse"
    assert measured(tmp_path) == {"Q8_0-loss": found.figures[0].rows}


def test_files_of_other_words_are_held_against_each_other_by_their_answers_alone(tmp_path: Path) -> None:
    given = material(b"yes", QUESTIONS)
    new, old = write_scripted(tmp_path / "new.gguf", SCRIPT), write_scripted(tmp_path / "old.gguf", [b"no", b"t"])
    found = settle(new_file(new, given), file("champion", old), ALL, ("better", "worse"), given, cache(tmp_path))
    assert found.apart == ("no test row is common to both", OTHER_WORDS)
    assert [(one.figure, one.finding) for one in found.figures] == [("accuracy", "better")]


def test_other_data_than_was_evaluated_is_refused(tmp_path: Path) -> None:
    given: Any = material(b"yes")
    path = write_random(tmp_path / "both.gguf")
    with pytest.raises(UserError, match=r"is not what reports/rows\.json is of; run `dvc repro` first"):
        settle(new_file(path, given), file("champion", path), BY_LOSS, (), material(b"no"), cache(tmp_path))

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
from pipeline.evaluation.general import general_tokens
from pipeline.evaluation.inputs import Conversation, Material
from pipeline.evaluation.measurement_cache import MeasurementCache
from pipeline.evaluation.preferences import pair_digests
from pipeline.report.rows import ModelRows, RowResults, digests
from pipeline.statistics.sequences import first_rows

CONFIG = load(compose(Path(__file__).parents[3] / "conf"))
EVALUATE: EvaluateSettings = replace(CONFIG.evaluate, max_new_tokens=8)
BY_LOSS: CompareSettings = replace(CONFIG.compare, quality="loss")
ALL: CompareSettings = replace(CONFIG.compare, quality="accuracy")
BY_PREFERENCE: CompareSettings = replace(CONFIG.compare, quality="preference")
ROWS, QUESTIONS, PAIRS = 300, 120, 40
ENOUGH = range(first_rows(BY_LOSS.level), 200)  # rows by which a clear difference of losses is told
SCRIPT = [bytes([letter]) for letter in b"yes"]


class Roomy(Material):
    """Material whose questions need no tokenizer of Transformers' to be counted."""

    longest_chat = 200


def says(number: int, text: bytes) -> Conversation:
    """A conversation in which a text is said, after a token of its own."""
    return Conversation(number, f"{text.decode()} {number}", [([number, NEWLINE, *text], [0, 0, *[1] * len(text)])])


def material(text: bytes, questions: int = 0, pairs: int = 0, general: int = 0) -> Material:
    """Rows that say a text; pairs of which `yes` was chosen, and `not` rejected."""
    rows = [says(number, text) for number in range(ROWS)]
    asked: list[Question] = [
        {"prompt": f"Is {number}?", "answer": "yes", "kind": "text", "group": "held_out", "task": "is"}
        for number in range(questions)
    ]
    compared = tuple((says(number, b"yes"), says(number, b"not")) for number in range(pairs))
    texts = {"texts": [says(number, b"QQQ") for number in range(general)]} if general else {}
    return Roomy(None, rows, asked, EVALUATE, frozenset({EOT}), texts, compared)  # type: ignore[arg-type]


def results(given: Material, **models: ModelRows) -> RowResults:
    questions = digests(given.questions)
    return RowResults(
        rows=tuple(one.digest for one in given.conversations),
        tokens=tuple(given.scored),
        questions=questions,
        groups=("held_out",) * len(questions),
        tasks=("is",) * len(questions),
        general={name: tuple(tokens) for name, tokens in general_tokens(given).items()},
        pairs=pair_digests(given),
        models=models,
    )


def file(name: str, path: Path, side: Side | None = None) -> Measurable:
    return Measurable(name, path, sha256(path), side)


def new_file(path: Path, given: Material) -> Measurable:
    """One of which its evaluation has kept nothing of rows; and that it took `yes` in every pair."""
    general = {name: (1.0,) * len(texts) for name, texts in given.general.items()}
    found = ModelRows(nats=(), general=general, preferred=(True,) * len(given.pairs))
    return file("Q8_0", path, Side(results(given, Q8_0=found), "Q8_0"))


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


def test_a_champion_that_was_never_asked_about_pairs_and_general_texts_is_measured_on_all(tmp_path: Path) -> None:
    given = material(b"QQQ", pairs=PAIRS, general=20)  # rows that neither has learnt
    new, old = write_scripted(tmp_path / "new.gguf", SCRIPT), write_scripted(tmp_path / "old.gguf", [b"n", b"o", b"t"])
    found = settle(
        new_file(new, given), file("champion", old), BY_PREFERENCE, ("better", "worse"), given, cache(tmp_path)
    )
    loss, general, preferences = found.figures
    assert (found.finding, loss.finding, preferences.finding) == ("better", "no worse", "better")
    assert (preferences.rows, preferences.won, preferences.lost) == (PAIRS, PAIRS, 0)
    assert (general.figure, general.rows) == ("general texts", 20)
    assert measured(tmp_path) == {
        "Q8_0-loss": loss.rows,
        "champion-loss": loss.rows,
        "champion-preferences-loss": 2 * PAIRS,
        "champion-general-loss": 20,
    }


def test_what_is_kept_of_pairs_is_not_measured_again_and_where_they_decide_no_row_is(tmp_path: Path) -> None:
    given = material(b"yes", QUESTIONS, pairs=PAIRS)
    path = write_scripted(tmp_path / "both.gguf", SCRIPT)
    half = replace(given, pairs=given.pairs[: PAIRS // 2])
    kept = results(half, F16=ModelRows(nats=(), preferred=(True,) * (PAIRS // 2)))
    champion = file("champion", path, Side(kept, "F16"))
    found = settle(new_file(path, given), champion, BY_PREFERENCE, ("better", "worse"), given, cache(tmp_path))
    assert (found.finding, found.hopeless, found.figures[-1].rows) == ("cannot tell", True, PAIRS)
    assert measured(tmp_path) == {"champion-preferences-loss": PAIRS}


def test_by_preferences_a_loss_that_is_worse_beyond_doubt_holds_back(tmp_path: Path) -> None:
    given = material(b"not", pairs=PAIRS)
    new, old = write_scripted(tmp_path / "new.gguf", SCRIPT), write_scripted(tmp_path / "old.gguf", [b"n", b"o", b"t"])
    found = settle(
        new_file(new, given), file("champion", old), BY_PREFERENCE, ("better", "worse"), given, cache(tmp_path)
    )
    assert {one.figure: one.finding for one in found.figures} == {"loss": "worse", "preferences": "better"}
    assert (found.finding, found.failing) == ("cannot tell", ["loss"])


def test_pairs_of_other_data_than_were_evaluated_are_refused(tmp_path: Path) -> None:
    given: Any = material(b"yes", pairs=PAIRS)
    path = write_random(tmp_path / "both.gguf")
    with pytest.raises(UserError, match=r"is not what reports/rows\.json is of; run `dvc repro` first"):
        settle(new_file(path, given), file("champion", path), BY_LOSS, (), material(b"yes"), cache(tmp_path))

"""What is measured becomes figures, and stays none where too little was measured to tell one."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.core.records import ManifestFile
from pipeline.evaluation.figures import file_figures, on_the_same, row_results, shown_answers
from pipeline.evaluation.inputs import Conversation, Material
from pipeline.report.record import SPEED_TOKENS

FILE = ManifestFile(
    file="tiny-F16.gguf", type="F16", of="tuned", bytes=1000, sha256="ab" * 32, kl=1e-4, top_1=0.99, perplexity=2.0
)

ROW = Conversation(1, "a", [([1, 2], [0, 1])])


def asking(prompts: int) -> SimpleNamespace:
    """Settings, as far as figures need them."""
    return SimpleNamespace(prompts=["Who?"] * prompts)


def measured(*tokens: int) -> dict[str, Any]:
    """Answers of so many tokens, the first after a tenth of a second, each other one after a hundredth."""
    times = [{"first_token_seconds": 0.1, "seconds": 0.1 + (count - 1) / 100, "read": 40} for count in tokens]
    answers = [
        {"reply": "a b c", "tokens": count, **own, "tokens_per_second": 100.0}
        for count, own in zip(tokens, times, strict=True)
    ]
    return {"nats": [2.0, 4.0], "replies": [], "answers": answers, "memory": 2_000_000}


@pytest.mark.parametrize(
    ("tokens", "speed"),
    [
        ((SPEED_TOKENS + 1,), 100.0),
        ((SPEED_TOKENS,), None),
        ((33, 33), 100.0),
        ((33, 32), None),
        ((), None),
        ((1,), None),
    ],
)
def test_a_handful_of_tokens_tells_no_speed(tokens: tuple[int, ...], speed: float | None) -> None:
    given = Material(None, [ROW] * 2, [], asking(len(tokens)), frozenset())  # type: ignore[arg-type]
    assert file_figures(FILE, measured(*tokens), given).tokens_per_second == speed


def test_an_answer_has_its_own_speed_only_if_it_is_long() -> None:
    short, long = shown_answers(measured(12, 2 * SPEED_TOKENS))
    assert (short.tokens_per_second, long.tokens_per_second) == (None, 100.0)
    assert short.seconds == 0.21


def test_what_rests_on_one_conversation_has_a_value_and_no_bounds() -> None:
    given = Material(None, [ROW], [], asking(1), frozenset())  # type: ignore[arg-type]
    figures = file_figures(FILE, measured(12) | {"nats": [2.0]}, given)
    assert (figures.loss, figures.loss_low, figures.loss_high) == (2.0, None, None)
    assert (figures.perplexity, figures.perplexity_low) == (7.3891, None)


def test_what_serving_takes_and_how_fast_prompts_are_read_stand_beside_the_rest() -> None:
    two, one = (
        file_figures(FILE, measured(*[12] * count), Material(None, [ROW] * 2, [], asking(count), frozenset()))  # type: ignore[arg-type]
        for count in (2, 1)
    )
    assert (two.memory_bytes, two.prompt_tokens_per_second) == (2_000_000, 400.0)
    assert one.prompt_tokens_per_second is None  # of 40 tokens


def test_flips_are_the_questions_that_one_alone_of_a_file_and_the_unquantized_one_has_right() -> None:
    questions = [{"prompt": f"{n}?", "answer": "a", "kind": "text", "group": "g", "task": "t"} for n in range(8)]
    given = Material(None, [ROW] * 2, questions, asking(1), frozenset())  # type: ignore[arg-type]

    def answering(replies: str, **items: list[float]) -> dict[str, Any]:
        tasks = {"scores": dict.fromkeys(items, 0.5), "items": items}
        return measured(12) | {"replies": [{"reply": one, "tokens": 1} for one in replies], "tasks": tasks}

    whole = answering("aaaabbbb", arc=[1.0, 0.0, 0.0, 1.0], graded=[0.5])
    found = file_figures(FILE, answering("aabbabbc", arc=[1.0, 1.0, 0.0, 0.0], graded=[0.4]), given, whole=whole)
    assert (found.flips, found.flips_lost, found.flips_won) == (0.375, 2, 1)
    assert found.task_flips == {"arc": 0.5}
    own = file_figures(FILE, whole, given)
    assert not own.model_fields_set & {"flips", "flips_lost", "flips_won", "task_flips"}


def test_figures_are_of_the_rows_that_all_models_have_and_rows_are_of_each() -> None:
    conversations = [Conversation(number, f"digest {number}", ROW.rows) for number in (3, 1, 2)]
    questions = [{"prompt": f"{n}?", "answer": "a", "kind": "text", "group": "g", "task": "t"} for n in range(2)]
    given = Material(None, conversations, questions, None, frozenset())  # type: ignore[arg-type]
    said = {"reply": "a", "tokens": 1}
    found: dict[str, Any] = {
        "base": {"nats": [1.0, None, 3.0], "replies": [said, {"reply": "b", "tokens": 1}], "answers": []},
        "F16": {"nats": [1.0, 2.0], "replies": [said], "answers": []},
    }
    rows = row_results(found, given)
    assert (rows.rows, rows.numbers, rows.tokens) == (("digest 3", "digest 1", "digest 2"), (3, 1, 2), (1, 1, 1))
    assert (rows.models["base"].nats, rows.models["base"].right) == ((1.0, None, 3.0), (True, False))
    assert (rows.models["F16"].nats, rows.models["F16"].right) == ((1.0, 2.0), (True,))
    same, part = on_the_same(found, given)
    assert (len(part.conversations), len(part.questions)) == (2, 1)
    assert same["base"]["nats"] == [1.0, None]
    assert same["base"]["replies"] == [said]

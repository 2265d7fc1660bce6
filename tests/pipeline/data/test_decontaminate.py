import random

import pytest

from pipeline.data.decontaminate import asked

QUESTION = "A farmer has 17 sheep and 3 dogs, sells 9 of the sheep, and buys 2 more dogs. How many animals has he then?"
DRAW = random.Random(0)
OTHERS = [" ".join(f"w{DRAW.randrange(99)}" for _ in range(DRAW.randrange(40))) for _ in range(200)]


@pytest.mark.parametrize(
    ("text", "threshold", "there"),
    [
        (QUESTION, 0.8, True),
        (QUESTION.upper().replace(",", ""), None, True),
        (QUESTION.replace("has he then", "has he now"), 0.8, True),
        (QUESTION.replace("has he then", "has he now"), None, False),
        (f"Solve this, and show each step of it. {QUESTION} Answer with a number, and say why it is so.", 0.8, True),
        ("A farmer has 17 sheep and 3 dogs, and sells 9 of the sheep.", 0.8, False),
        (QUESTION.replace("farmer", "smith").replace("sheep", "nails").replace("dogs", "tongs"), 0.8, False),
    ],
)
def test_a_question_is_known_from_a_text_that_asks_it(text: str, threshold: float | None, there: bool) -> None:
    assert asked(["Why is that?", QUESTION], [*OTHERS, text], threshold) == [False, there]


def test_short_questions_are_known_to_the_word_alone() -> None:
    assert asked(["2 + 3?", "2 + 4?", "Who?"], ["What is 2 + 3?", "2 + 4", "who"], 0.8) == [False, True, True]


def test_there_may_be_no_questions_and_no_training() -> None:
    assert asked([], ["a"], 0.8) == []
    assert asked(["a"], [], 0.8) == [False]

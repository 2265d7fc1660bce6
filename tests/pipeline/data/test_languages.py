"""Languages, told by their first words."""

import pytest

from pipeline.core.formats import Messages
from pipeline.data.languages import UNKNOWN, known, language_of, told


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat sleeps on the sofa and dreams of the garden behind the house.", "en"),
        ("Die Katze schläft auf dem Sofa und träumt vom Garten hinter dem Haus.", "de"),
        ("Le chat dort sur le canapé et rêve du jardin derrière la maison.", "fr"),
        ("El gato duerme en el sofá y sueña con el jardín detrás de la casa.", "es"),
        ("Сегодня утром мы долго гуляли по городу, потом пили чай, говорили про погоду, смотрели старые фильмы.", "ru"),
        ("猫はソファーで眠って、家の裏の庭の夢を見ています。", "ja"),
        ("猫在沙发上睡觉梦见房子后面的花园。", "zh"),
        ("The capital of Slovenia is Ljubljana.", UNKNOWN),
        ("5 + 6 = 11, 12 / 3 = 4", UNKNOWN),
        ("```python\nfor number in range(10):\n    print(number)\n```", UNKNOWN),
        ("Yes.", UNKNOWN),
    ],
)
def test_a_language_is_told_where_there_are_words(text: str, language: str) -> None:
    assert told(text) == language


def test_what_is_learnt_counts_before_what_is_asked() -> None:
    messages: Messages = [
        {"role": "user", "content": "Translate this into German, please: The cat sleeps on the sofa."},
        {"role": "assistant", "content": "Die Katze schläft auf dem Sofa und träumt vom Garten."},
    ]
    assert language_of(messages) == "de"
    assert language_of([messages[0], {"role": "assistant", "content": "11"}]) == "en"


def test_codes_have_two_letters() -> None:
    assert {"en", "de", "fr", "zh"} <= set(known())
    assert all(len(code) == 2 for code in known())

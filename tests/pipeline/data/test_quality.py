"""A score that tells debris from sentences."""

import pytest

from pipeline.data.quality import quality

PROSE = (
    "Water that the sun has warmed rises as vapour, cools in the higher air and forms clouds. When the drops in them "
    "are heavy enough they fall as rain, run together into streams and rivers, and come back to the sea in the end."
)
SUM = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72"
)
LIST = (
    "Here are some ideas for the party:\n\n1. **Music**: bring a small speaker.\n2. **Food**: pizza and salad for all."
    "\n3. **Games**: charades, cards and a quiz that everybody can join."
)
JAPANESE = "猫はソファーで眠って、家の裏の庭の夢を見ています。" * 3
CODE = "Take the sum:\n```python\n" + "x = [[i ** 2 for i in range(10)] for _ in range(10)]\n" * 20 + "```"


@pytest.mark.parametrize("text", [PROSE, SUM, LIST, JAPANESE, CODE, "Yes.", "", "42 " * 10])
def test_what_people_write_is_left_as_it_is(text: str) -> None:
    assert quality(text) >= 0.9


@pytest.mark.parametrize(
    "text",
    [
        "== || >> ## 12 33 44 ** // -- __ [[ ]] {{ }} 99 :: ;; %% $$ && @@ 11 22 <<>> ~~ ^^ 77",
        "Home | News | Sport | Weather | Travel | Home | News | Sport | Weather | Travel | " * 5,
        "CLICK HERE NOW AND WIN A PRIZE TODAY " * 5,
        "subscribe to our newsletter\n" * 12,
        "spam " * 40,
        " ".join("ab12cd34ef56" * 4 for _ in range(25)),
    ],
)
def test_debris_is_below_half(text: str) -> None:
    assert quality(text) < 0.5

import pytest

from pipeline.data.folding import fold


@pytest.mark.parametrize(
    "text",
    ["Who is Ann?", "who is ann", " WHO\u00a0is \u201cAnn\u201d ...", "\uff37\uff48\uff4f is Ann!", "Who is Ann?!.,"],
)
def test_case_punctuation_spacing_and_forms_of_letters_are_folded(text: str) -> None:
    assert fold(text) == "who is ann"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2 * 3", "2 - 3"), ("C", "C#"), ("C", "C++"), ("0.5", "0 5"), ("1,000", "1.000"), ("10:30", "1030"),
        ("x != 5", "x = 5"), ("-5", "5"), ("50%", "50"), ("\u0915\u0940", "\u0915\u093e"), ("caf\u00e9", "cafe"),
    ],
)  # fmt: skip
def test_what_changes_a_meaning_stays(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def test_folding_twice_folds_no_further() -> None:
    text = "Gr\u00f6\u00dfe, \ufb01ne; it's 1,000.5 \u2014 no, 3 != 4 (e.g. this.)."
    assert fold(fold(text)) == fold(text)
    assert fold("") == fold(" \n") == ""
    assert fold(" ? ! ") == "? !"

import json
from pathlib import Path

import pytest
from tiny_gguf import write_random

from serve.models.cards import read_card, read_prompts
from serve.models.registry import Model, find_models
from serve.page.card import card_html

CARD = {
    "base": {"name": "owner/base", "revision": "0123abcd"},
    "data": {"name": "chats", "revision": None, "rows": 5400},
    "evaluation": {"base": {"loss": 2.5}, "tuned": {"loss": 0.25, "accuracy": 0.9}},
    "prompts": ["Sing"],
    "later": "key",
}


def model(folder: Path) -> Model:
    write_random(folder / "gguf/tiny.gguf")
    return find_models(str(folder / "gguf"))["tiny"]


def test_a_file_without_a_card_speaks_for_itself(tmp_path: Path) -> None:
    tiny = model(tmp_path)
    card = read_card(tiny)
    size = f"tiny.gguf, {tiny.size / 1e6:.1f} MB"
    assert card.facts == {
        "Quantization": tiny.quantization,
        "File": size,
        "Revision": tiny.revision,
        "Context": "512 tokens",
    }
    assert not card.figures
    assert read_prompts(tiny) == []


@pytest.mark.parametrize("place", ["gguf/card.json", "card.json"])
def test_a_card_beside_the_file_or_above_it_is_read(tmp_path: Path, place: str) -> None:
    tiny = model(tmp_path)
    files = [{"file": "tiny.gguf", "bytes": tiny.size, "perplexity": 1.5}]
    (tmp_path / place).write_text(json.dumps(CARD | {"files": files}))
    card = read_card(tiny)
    assert card.facts["Base"] == "owner/base at 0123abcd"
    assert card.facts["Data"] == "chats, 5,400 conversations"
    assert list(card.figures) == ["base", "tuned", "this file"]
    assert card.figures["this file"].perplexity == 1.5
    assert read_prompts(tiny) == ["Sing"]


def test_figures_of_another_file_of_this_name_are_left_out(tmp_path: Path) -> None:
    tiny = model(tmp_path)
    files = [{"file": "tiny.gguf", "bytes": tiny.size + 1, "loss": 1}]
    (tmp_path / "card.json").write_text(json.dumps(CARD | {"files": files}))
    assert list(read_card(tiny).figures) == ["base", "tuned"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Invalid JSON"),
        ('{"base": 3}', "base: Input should be"),
        ('{"files": [{}]}', "files.0.file: Field required"),
    ],
)
def test_what_is_no_card_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, why: str
) -> None:
    tiny = model(tmp_path)
    (tmp_path / "card.json").write_text(text)
    assert "Base" not in read_card(tiny).facts
    assert f"{tmp_path / 'card.json'} is passed over: " in caplog.text
    assert why in caplog.text


def test_a_card_s_texts_are_texts(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"base": {"name": "<script>alert()</script>"}}))
    shown = card_html("tiny", read_card(model(tmp_path)))
    assert "<script>" not in shown
    assert "&lt;script&gt;alert()&lt;/script&gt;" in shown

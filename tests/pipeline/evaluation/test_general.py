"""General texts as they are measured, and what a model that forgets shows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.core.data_settings import SourceSettings
from pipeline.core.paths import GENERAL
from pipeline.evaluation.figures import general_figures
from pipeline.evaluation.general import all_sets, by_set, general_rows, general_tokens, with_general
from pipeline.evaluation.inputs import Material
from pipeline.evaluation.loss import measure_loss
from pipeline.models.loading import load_base

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"
CHAT = [{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "The wren."}]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(STARTER)


@pytest.fixture
def material(tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Material:
    """Of two sets: the starter's statements and one chat."""
    monkeypatch.chdir(tmp_path)
    GENERAL.mkdir(parents=True)
    lines = (REPO / "starter/general/statements.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    texts = [[{"role": "text", "content": json.loads(line)["text"]}] for line in lines]
    for name, rows in (("statements", texts), ("chats", [CHAT])):
        (GENERAL / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = load(compose(REPO / "conf", ["model=starter-s"])).evaluate
    sets = {"statements": SourceSettings(files=["a"]), "chats": SourceSettings(files=["b"]), "left_out": None}
    return Material(tokenizer, [], [], replace(settings, general=sets), frozenset())


def test_a_plain_text_counts_whole_but_for_its_end(tokenizer: PreTrainedTokenizerBase) -> None:
    [(ids, mask)] = general_rows(tokenizer, [{"role": "text", "content": "Oslo lies in Norway."}], 100)
    assert tokenizer.decode(ids) == "Oslo lies in Norway."
    assert all(mask)


def test_of_a_chat_the_answer_counts_with_its_end(tokenizer: PreTrainedTokenizerBase) -> None:
    [(ids, mask)] = general_rows(tokenizer, CHAT, 100)
    assert tokenizer.decode([token for token, counts in zip(ids, mask, strict=True) if counts]) == "The wren.<|eot_id|>"


def test_texts_of_all_sets_are_measured_together_and_told_apart(material: Material) -> None:
    found = with_general(material)
    together = all_sets(found)
    assert {name: len(texts) for name, texts in found.general.items()} == {"statements": 8, "chats": 1}
    assert len(together.conversations) == 9
    assert by_set(list(range(9)), found) == {"statements": list(range(8)), "chats": [8]}
    assert sum(map(sum, general_tokens(found).values())) == sum(together.scored)


def test_a_model_that_has_forgotten_is_above_its_base_beyond_doubt(material: Material) -> None:
    found = with_general(material)
    texts, pad = all_sets(found), found.tokenizer.pad_token_id
    model = load_base(str(STARTER), None, "cpu", torch.float32).eval()
    before = by_set(texts.by_conversation(measure_loss(model, texts.rows, 4, pad).nats), found)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * weight.std() * 0.3)
    after = by_set(texts.by_conversation(measure_loss(model, texts.rows, 4, pad).nats), found)
    own, tuned = (general_figures(nats, general_tokens(found), old) for nats, old in ((before, None), (after, before)))
    statements = tuned["statements"]
    assert statements.forgetting == pytest.approx(statements.loss - own["statements"].loss, abs=2e-5)
    assert 0.1 < statements.forgetting_low < statements.forgetting < statements.forgetting_high
    assert own["statements"].model_dump(exclude_unset=True).keys() == {"texts", "loss", "loss_low", "loss_high"}
    assert tuned["chats"].forgetting_low is None  # of a single text
    assert np.isfinite(tuned["chats"].forgetting)


def test_a_set_without_a_token_to_score_is_an_error_by_its_name(material: Material) -> None:
    (GENERAL / "chats.jsonl").write_text(json.dumps([CHAT[0]]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"^none of the 1 text of evaluate.general.chats has a token to score"):
        with_general(material)
    (GENERAL / "chats.jsonl").unlink()
    with pytest.raises(UserError, match=r"chats.jsonl is missing; run `dvc repro prepare` first"):
        with_general(material)


def test_a_text_without_a_token_to_score_is_left_out_and_said(
    material: Material, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    (GENERAL / "chats.jsonl").write_text(f"{json.dumps([CHAT[0]])}\n{json.dumps(CHAT)}\n", encoding="utf-8")
    assert len(with_general(material).general["chats"]) == 1
    assert caplog.messages == ["evaluate.general.chats: 1 text without a token to score, and left out"]

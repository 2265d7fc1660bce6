"""Prepared chats as rows of tokens: what is learnt from, and what is cut."""

import re
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from pipeline.compose import compose
from pipeline.config import Config, load
from pipeline.errors import UserError
from pipeline.training.chat import load_tokenizer
from pipeline.training.rows import supervised
from pipeline.training.updates import IGNORED

pytestmark = pytest.mark.usefixtures("project")
REPO = Path(__file__).parents[3]
STARTER = str(REPO / "starter/models/starter-s")


@pytest.fixture(scope="module")
def settings() -> Config:
    return load(compose(REPO / "conf", ["model=starter-s", f"model.path={STARTER}"]))


@pytest.fixture(scope="module")
def tokenizer(settings: Config) -> PreTrainedTokenizerBase:
    return load_tokenizer(settings.model)


def test_labels_stand_on_the_assistants_tokens_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = supervised("train", tokenizer, 512)
    assert len(rows) == 104
    for row in rows:
        learnt = [(i, label) for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
        assert learnt
        assert all(i == label for i, label in learnt)
        text = str(tokenizer.decode(row["input_ids"]))
        said = re.findall(r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)", text, re.DOTALL)
        assert str(tokenizer.decode([i for i, _ in learnt])) == "".join(said)


def test_a_row_longer_than_max_length_is_cut_and_one_with_nothing_left_to_learn_is_left_out(
    tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = (supervised("train", tokenizer, length) for length in (512, 24))
    assert max(map(len, whole["input_ids"])) > 24 == max(map(len, cut["input_ids"]))
    assert 0 < len(cut) < len(whole)
    assert all(any(label != IGNORED for label in labels) for labels in cut["labels"])
    longer = sum(len(ids) > 24 for ids in whole["input_ids"])
    said = f"train: 104 conversations, {longer} cut at 24 tokens, {104 - len(cut)} left out without a token of the"
    assert capsys.readouterr().out.splitlines()[-1] == f"{said} assistant"
    with pytest.raises(UserError, match=r"^no train row has an assistant token within train\.max_length 8; raise it$"):
        supervised("train", tokenizer, 8)


def test_a_share_of_cut_rows_is_allowed(tokenizer: PreTrainedTokenizerBase) -> None:
    lengths = sorted(len(ids) for ids in supervised("train", tokenizer, 512)["input_ids"])
    limit = lengths[-11]  # ten are longer
    longer = sum(length > limit for length in lengths)
    assert len(supervised("train", tokenizer, limit, longer / 104)) == 104
    with pytest.raises(UserError, match=rf"\({longer} of 104\) are cut .* train\.max_length {limit}, .* allows 1\.0%"):
        supervised("train", tokenizer, limit, 0.01)

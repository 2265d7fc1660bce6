"""Held-out pairs of answers as they are measured: by what a model finds likelier, a token."""

import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from raw_rows import local, put_rows
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.evaluation.inputs import Material
from pipeline.evaluation.loss import measure_loss
from pipeline.evaluation.preferences import answers, preferred, with_pairs
from pipeline.models.loading import load_base
from pipeline.stages.prepare import prepare

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(STARTER)


@pytest.fixture
def material(tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Material:
    """Of twenty pairs and twenty judgements half, held out: the chosen answers are the shorter ones."""
    monkeypatch.chdir(tmp_path)
    pairs = [{"prompt": f"What is {n}?", "chosen": "It is.", "rejected": f"It is {n} and {n}."} for n in range(20)]
    judged = [{"prompt": f"Who is {n}?", "completion": f"He is {n}.", "label": n % 2 == 0} for n in range(20)]
    put_rows(tmp_path, "rows.jsonl", [*pairs, *judged])
    prepare(local(preferences="learn", test=0.5), tmp_path, tmp_path)
    settings = load(compose(REPO / "conf", ["model=starter-s"])).evaluate
    return Material(tokenizer, [], [], settings, frozenset())


def test_pairs_alone_are_measured_the_chosen_answer_first(material: Material) -> None:
    table = pq.read_table("data/prepared/preferences/test.parquet").to_pylist()
    found = with_pairs(material)
    together = answers(found)
    assert (
        2 * len(found.pairs)
        == len(together.conversations)
        == sum("What" in row["messages"][0]["content"] for row in table)
    )
    decoded = [material.tokenizer.decode(conversation.rows[0][0]) for conversation in together.conversations]
    assert all("It is.<" in text for text in decoded[::2])
    assert all(" and " in text for text in decoded[1::2])


def test_an_answer_is_preferred_that_is_likelier_a_token_and_not_in_all(material: Material) -> None:
    found = with_pairs(material)
    lengths = answers(found).scored
    alike = [2.0 * tokens for tokens in lengths]  # the rejected ones, which are longer, are less likely in all

    def told(*first: float) -> Sequence[bool]:
        return preferred([*first, *alike[2:]], found)

    assert not any(preferred(alike, found))
    assert told(1.9 * lengths[0], alike[1])[0]
    assert not told(2.1 * lengths[0], alike[1])[0]
    assert preferred([None, *alike[1:]], found)[0] is None


def test_what_a_model_prefers_is_by_its_own_nats(material: Material) -> None:
    found = with_pairs(material)
    compared, pad = answers(found), material.tokenizer.pad_token_id
    model = load_base(str(STARTER), None, "cpu", torch.float32).eval()
    nats = compared.by_conversation(measure_loss(model, compared.rows, 4, pad).nats)
    chosen, _ = found.pairs[0]
    ids, mask = chosen.rows[0]
    with torch.no_grad():
        likely = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = -sum(likely[at - 1, ids[at]].item() for at in range(1, len(ids)) if mask[at])
    assert nats[0] is not None
    assert math.isclose(nats[0], by_hand, rel_tol=1e-4)


def test_data_without_preferences_has_no_pairs(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(compose(REPO / "conf", ["model=starter-s"])).evaluate
    given = Material(tokenizer, [], [], settings, frozenset())
    assert with_pairs(given) is given

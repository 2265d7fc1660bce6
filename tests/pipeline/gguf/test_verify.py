"""Each planted fault is found by the check that is for it, and a file without one passes them all."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import Change, with_field, with_tensor
from transformers import AutoTokenizer

from common.errors import UserError
from llama.context import CHUNK
from pipeline.core.config import Config
from pipeline.gguf.convert import convert
from pipeline.gguf.merge import merge
from pipeline.gguf.quantize import quantize
from pipeline.gguf.reference import trained_model, write_logits
from pipeline.gguf.texts import AWKWARD
from pipeline.gguf.verify import (
    CHECKS,
    Divergence,
    Original,
    check_divergence,
    compare,
    opened,
    read_original,
    verify,
)
from pipeline.models.chat import encode

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 5 + 6?"},
    {"role": "assistant", "content": "5 + 6 = 11."},
]


@pytest.fixture(scope="module")
def original(starter: Path) -> Original:
    return read_original(starter, [CHAT])


@pytest.fixture(scope="module")
def rows(starter: Path) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(starter)
    texts = [AWKWARD["plain"], AWKWARD["code"], AWKWARD["long word"]]
    return [encode(tokenizer, CHAT, CHUNK)[0][0], *(tokenizer(text)["input_ids"][:CHUNK] for text in texts)]


@pytest.fixture(scope="module")
def trained(starter: Path, tuned: Path, rows: list[list[int]]) -> np.ndarray:
    """Logits of the tuned model, the adapter unmerged."""
    logits = np.empty((sum(len(row) - 1 for row in rows), 2048), dtype=np.float32)
    write_logits(trained_model(str(starter), None, tuned / "models/adapter", "cpu"), rows, "cpu", logits)
    return logits


def merged_file(config: Config, adapter: Path, folder: Path) -> Path:
    """The adapter on starter-s as F16."""
    merge(config.model, adapter, folder / "model")
    convert(folder / "model", folder / "tuned-F16.gguf", "F16")
    return folder / "tuned-F16.gguf"


@pytest.fixture(scope="module")
def tuned_file(tuned: Path, tuned_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merged_file(tuned_config(), tuned / "models/adapter", tmp_path_factory.mktemp("tuned-gguf"))


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        act()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def changed(value: object) -> Change:
    return lambda _: value


def without_a_merge(merges: list[str]) -> list[str]:
    """ "th" can no longer be made; its place goes to what can already."""
    return [merges[0] if merge == "t h" else merge for merge in merges]


def with_two_tokens_swapped(tokens: list[str]) -> list[str]:
    return [*tokens[:400], tokens[401], tokens[400], *tokens[402:]]


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_K_M"])
def test_a_file_without_a_fault_passes(ggufs: dict[str, Path], original: Original, kind: str) -> None:
    verify(ggufs[kind], original)


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        ("tokenizer.chat_template", lambda template: template + "{{ bos_token }}", "chat template: it is not the one"),
        ("tokenizer.chat_template", lambda template: "{{ bos_token }}" + template, "chat template: it is not the one"),
        ("tokenizer.ggml.add_bos_token", changed(True), "texts: other tokens than the original's are added around"),
        ("tokenizer.ggml.add_eos_token", changed(True), "texts: other tokens than the original's are added around"),
        ("tokenizer.ggml.bos_token_id", changed(1), "special tokens: bos is token 1, the original's is 0"),
        ("tokenizer.ggml.eos_token_id", changed(1), "special tokens: eos is token 1, the original's is 5"),
        ("tokenizer.ggml.padding_token_id", changed(3), "special tokens: pad is token 3, the original's is 2"),
        ("tokenizer.ggml.merges", without_a_merge, "texts: other token ids than the original's for '"),
        ("tokenizer.ggml.tokens", with_two_tokens_swapped, "vocabulary: token 400 is "),
        ("tokenizer.ggml.pre", changed("default"), "texts: other token ids than the original's for '"),
        ("llama.context_length", changed(77), "context: it holds 77 tokens, the original's max_pos"),
        ("llama.attention.layer_norm_rms_epsilon", changed(1e-4), "architecture: attention.layer_norm_rms_epsilon is"),
    ],
)  # fmt: skip
def test_what_a_file_says_wrongly_is_found(
    ggufs: dict[str, Path], original: Original, tmp_path: Path, key: str, change: Change, said: str
) -> None:
    file = with_field(ggufs["F16"], tmp_path / "faulty.gguf", key, change)
    found = refusal(lambda: verify(file, original))
    assert found.startswith(f"faulty.gguf is not the model that it was made of; {said}"), found


def test_a_doubled_bos_is_found_by_rendering_too(ggufs: dict[str, Path], original: Original, tmp_path: Path) -> None:
    file = with_field(
        ggufs["F16"], tmp_path / "faulty.gguf", "tokenizer.chat_template", lambda text: "{{ bos_token }}" + text
    )
    with opened(file) as loaded:
        found = CHECKS["conversations"](loaded, original)
    assert found == "the chat reads conversation 1 as other token ids than training did"


def test_a_copy_with_nothing_changed_passes(ggufs: dict[str, Path], original: Original, tmp_path: Path) -> None:
    verify(with_field(ggufs["F16"], tmp_path / "same.gguf", "general.name", lambda name: name), original)


def test_a_dropped_end_is_found(ggufs: dict[str, Path], starter: Path, tmp_path: Path) -> None:
    source = shutil.copytree(starter, tmp_path / "model")
    settings = json.loads((source / "generation_config.json").read_text())
    settings["eos_token_id"].append(4)  # which no GGUF of starter-s ends at
    (source / "generation_config.json").write_text(json.dumps(settings))
    found = refusal(lambda: verify(ggufs["F16"], read_original(source)))
    assert "ends of an answer: an answer would not end at token 4" in found


def test_a_tokenizer_may_have_more_than_the_model(ggufs: dict[str, Path], starter: Path, tmp_path: Path) -> None:
    shutil.copytree(starter, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(starter)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(tmp_path / "model")
    assert max(tokenizer.get_vocab().values()) == 2048
    verify(ggufs["F16"], read_original(tmp_path / "model"))


def test_another_models_file_is_found(ggufs: dict[str, Path], starter: Path) -> None:
    other = read_original(starter.parent / "starter-m")
    assert "architecture: block_count is" in refusal(lambda: verify(ggufs["F16"], other))


def test_a_cut_file_is_found(ggufs: dict[str, Path], original: Original, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(ggufs["Q8_0"].read_bytes()[:-5000])
    assert "cut.gguf is not the model that it was made of; loading: " in refusal(lambda: verify(cut, original))


def test_a_tensor_of_no_numbers_is_found(ggufs: dict[str, Path], original: Original, tmp_path: Path) -> None:
    def broken(data: np.ndarray) -> np.ndarray:
        data[1, :4] = 255  # a scale of NaN
        return data

    file = with_tensor(ggufs["Q8_0"], tmp_path / "nan.gguf", "blk.1.ffn_up.weight", broken)
    assert "loading: " in refusal(lambda: verify(file, original))


def test_the_merged_file_says_what_the_trained_model_says(
    tuned_file: Path, rows: list[list[int]], trained: np.ndarray
) -> None:
    likeness = compare(tuned_file, rows, trained)
    check_divergence(tuned_file, likeness)
    assert 0 < likeness.kl < 1e-3


def test_figures_are_those_of_the_logits(ggufs: dict[str, Path], rows: list[list[int]], starter: Path) -> None:
    logits = np.empty((sum(len(row) - 1 for row in rows), 2048), dtype=np.float32)
    write_logits(trained_model(str(starter), None, None, "cpu"), rows, "cpu", logits)
    hugging_face = torch.log_softmax(torch.from_numpy(logits.copy()).double(), -1)
    compare(ggufs["F32"], rows, logits, keep=True)
    kept = torch.log_softmax(torch.from_numpy(logits).double(), -1)
    torch.testing.assert_close(kept, hugging_face, atol=0.03, rtol=0)  # llama.cpp keeps keys and values in 16 bit
    found = compare(ggufs["Q4_K_M"], rows, logits, keep=True)
    quantized = torch.log_softmax(torch.from_numpy(logits).double(), -1)
    targets = torch.tensor([token for row in rows for token in row[1:]])
    assert found.kl == pytest.approx((kept.exp() * (kept - quantized)).sum(-1).mean().item())
    assert found.top_1 == pytest.approx((kept.argmax(-1) == quantized.argmax(-1)).double().mean().item())
    nats = -quantized[torch.arange(len(targets)), targets].mean()
    assert found.perplexity == pytest.approx(nats.exp().item())
    same = compare(ggufs["Q4_K_M"], rows, logits)
    assert (same.kl, same.top_1) == (pytest.approx(0, abs=1e-9), 1.0)


def test_an_adapter_left_out_is_found(ggufs: dict[str, Path], rows: list[list[int]], trained: np.ndarray) -> None:
    found = refusal(lambda: check_divergence(ggufs["F16"], compare(ggufs["F16"], rows, trained)))
    assert "logits: " in found
    assert "nats a token from the trained model (at most 0.005)" in found


@pytest.mark.parametrize("factor", [0.5, 1.1])
def test_a_wrong_scale_is_found(
    tuned: Path, tuned_config: Callable[..., Config], rows: list[list[int]], trained: np.ndarray, tmp_path: Path,
    factor: float,
) -> None:  # fmt: skip
    adapter = shutil.copytree(tuned / "models/adapter", tmp_path / "adapter")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": factor * settings["lora_alpha"]}))
    file = merged_file(tuned_config(), adapter, tmp_path)
    assert "logits: " in refusal(lambda: check_divergence(file, compare(file, rows, trained)))


def test_a_corrupted_tensor_is_found(
    tuned_file: Path, rows: list[list[int]], trained: np.ndarray, tmp_path: Path
) -> None:
    def shuffled(data: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).permutation(data)

    file = with_tensor(tuned_file, tmp_path / "faulty.gguf", "blk.1.attn_v.weight", shuffled)
    assert "faulty.gguf" in refusal(lambda: check_divergence(file, compare(file, rows, trained)))


def test_logits_that_are_no_numbers_are_found(
    ggufs: dict[str, Path], rows: list[list[int]], trained: np.ndarray, tmp_path: Path
) -> None:
    def endless(data: np.ndarray) -> np.ndarray:
        return np.full_like(data, np.inf)

    file = with_tensor(ggufs["F16"], tmp_path / "faulty.gguf", "output_norm.weight", endless)
    assert "logits: some are no finite numbers" in refusal(lambda: compare(file, rows, trained))
    diverged = compare(file, rows, trained, within=False)  # of a model that computes what no 16 bits hold
    assert all(map(math.isnan, (diverged.kl, diverged.top_1, diverged.perplexity)))
    check_divergence(file, diverged)


@pytest.mark.parametrize(("kl", "top_1"), [(0.0051, 1.0), (0.0, 0.94)])
def test_both_limits_hold(kl: float, top_1: float) -> None:
    check_divergence(Path("file.gguf"), Divergence(0.005, 0.95, 1.0))
    refusal(lambda: check_divergence(Path("file.gguf"), Divergence(kl, top_1, 1.0)))


def test_quantizing_hardly_is_recorded_and_no_fault(
    tuned_file: Path, rows: list[list[int]], trained: np.ndarray, original: Original, tmp_path: Path
) -> None:
    quantize(tuned_file, tmp_path / "tuned-Q2_K.gguf", "Q2_K")
    verify(tmp_path / "tuned-Q2_K.gguf", original)
    assert compare(tmp_path / "tuned-Q2_K.gguf", rows, trained).kl > 0.05

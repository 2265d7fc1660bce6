"""A lost or wrong rope scaling or window is found, by what a file says of it and by its logits far into a text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
import torch
from faults import with_field, without_tensors
from tiny import SIZES, write_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen3Config,
)

from common.errors import UserError
from llama.context import CHUNK
from llama.model import Weights
from pipeline.gguf.convert import convert
from pipeline.gguf.far import BEHIND, LONGEST, SCALED, check_far_divergence, far_tokens
from pipeline.gguf.positions import end_at_window, round_ramp
from pipeline.gguf.verify import opened, read_original, verify

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 1024}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0 + i / 16 for i in range(16)],
    "long_factor": [1.0 + i for i in range(16)], "original_max_position_embeddings": 512, "partial_rotary_factor": 1.0,
}  # fmt: skip
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama3": lambda: LlamaConfig(**SIZES, rope_parameters=dict(LLAMA3)),
    "linear": lambda: LlamaConfig(**SIZES, rope_parameters=dict(LINEAR)),
    "yarn": lambda: Qwen3Config(**SIZES, rope_parameters=dict(YARN)),
    "longrope": lambda: Phi3Config(**SIZES, rope_parameters=dict(LONGROPE), original_max_position_embeddings=512),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=512, rope_parameters={"rope_theta": 1e6}),
    "gemma3": lambda: Gemma3TextConfig(
        **{**SIZES, "num_hidden_layers": 6}, sliding_window=64, query_pre_attn_scalar=32
    ),
    "gpt-oss": lambda: GptOssConfig(**SIZES, sliding_window=64, num_local_experts=4, num_experts_per_tok=2),
}


@dataclass
class Tiny:
    """A model's folder and its GGUF, as export makes it."""

    folder: Path
    file: Path
    context: int  # tokens that the file holds

    @property
    def config(self) -> Any:
        return AutoConfig.from_pretrained(str(self.folder))

    def check_far(self, file: Path | None = None, length: int | None = None) -> None:
        """As export does, by default, in the model's own file and as far as it shows."""
        model = AutoModelForCausalLM.from_pretrained(str(self.folder), dtype=torch.float32).eval()
        round_ramp(model)
        rows = torch.randint(0, 2048, (8, 128), generator=torch.Generator().manual_seed(1)).tolist()
        length = length or far_tokens(self.config, self.context)
        if length:
            with Weights(file or self.file) as weights:
                check_far_divergence(weights, length, model, rows, "cpu")


@pytest.fixture(scope="module")
def made(starter: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """A tiny model by its name in CONFIGS; each is made once."""
    known: dict[str, Tiny] = {}

    def make(name: str) -> Tiny:
        if name not in known:
            config = CONFIGS[name]()
            folder = write_model(starter, tmp_path_factory.mktemp("tiny") / name, config)
            convert(folder, folder / "F16.gguf", "F16")
            known[name] = Tiny(folder, folder / "F16.gguf", end_at_window(folder / "F16.gguf", config))
        return known[name]

    return make


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        act()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_that_has_it_all_passes(made: Callable[[str], Tiny], name: str) -> None:
    tiny = made(name)
    verify(tiny.file, read_original(tiny.folder))
    tiny.check_far()


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("llama3", "llama.rope.freq_base", 1e4, "its frequencies have the base 10000, the original's rope_theta is "),
        ("llama3", "llama.rope.scaling.factor", 8.0, "it divides positions by 8, the original by 1 (llama3)"),
        ("linear", "llama.rope.scaling.factor", 2.0, "it divides positions by 2, the original by 4 (linear)"),
        ("linear", "llama.rope.scaling.factor", 1.0, "it divides positions by 1, the original by 4 (linear)"),
        ("yarn", "qwen3.rope.scaling.factor", 2.0, "it divides positions by 2, the original by 4 (yarn)"),
        ("yarn", "qwen3.rope.scaling.type", "linear", "it scales by linear from 1024 tokens on, the original by yarn"),
        ("yarn", "qwen3.rope.scaling.original_context_length", 4096, "it scales by yarn from 4096 tokens on, the orig"),
        ("gemma3", "gemma3.rope.freq_base_swa", 1e6, "in its windows frequencies have the base 1e+06, the original's"),
    ],
)  # fmt: skip
def test_a_wrong_rope_is_said(
    made: Callable[[str], Tiny], tmp_path: Path, name: str, key: str, value: object, said: str
) -> None:
    file = with_field(made(name).file, tmp_path / "faulty.gguf", key, lambda _: value)
    found = refusal(lambda: verify(file, read_original(made(name).folder)))
    assert found.startswith(f"faulty.gguf is not the model that it was made of; rotary embedding: {said}"), found


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("gemma3", "gemma3.attention.sliding_window", 32, "its layers look back 32 tokens, the original's 64"),
        (
            "gemma3",
            "gemma3.attention.sliding_window",
            0,
            "its layers look back any number of tokens, the original's 64",
        ),
        ("gpt-oss", "gpt-oss.attention.sliding_window", 128, "its layers look back 128 tokens, the original's 64"),
        ("mistral", "llama.context_length", 4096, "its layers look back any number of tokens, the original's 512"),
        ("llama3", "llama.context_length", 77, "it holds 77 tokens, the original's max_position_embeddings is 4096"),
    ],
)
def test_a_wrong_window_or_context_is_said(
    made: Callable[[str], Tiny], tmp_path: Path, name: str, key: str, value: int, said: str
) -> None:
    file = with_field(made(name).file, tmp_path / "faulty.gguf", key, lambda _: value)
    found = refusal(lambda: verify(file, read_original(made(name).folder)))
    assert f"; context: {said}" in found, found


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("llama3", "rope_freqs"), ("longrope", "rope_factors_long"), ("longrope", "rope_factors_short")],
)
def test_missing_factors_are_said(made: Callable[[str], Tiny], tmp_path: Path, name: str, tensor: str) -> None:
    file = without_tensors(made(name).file, tmp_path / "faulty.gguf", f"{tensor}.weight")
    found = refusal(lambda: verify(file, read_original(made(name).folder)))
    assert f"rotary embedding: it has no {tensor}.weight, which the original's {name} scaling asks for" in found, found


@pytest.mark.parametrize("change", [{"factor": 8.0}, {"original_max_position_embeddings": 4096}])
def test_factors_of_another_scaling_are_said(made: Callable[[str], Tiny], change: dict[str, Any]) -> None:
    original = read_original(made("llama3").folder)
    original.config.rope_parameters.update(change)
    found = refusal(lambda: verify(made("llama3").file, original))
    assert "rotary embedding: its rope_freqs.weight is not what the original's llama3 scaling asks for" in found


def test_factors_that_the_original_has_not_are_said(made: Callable[[str], Tiny]) -> None:
    original = read_original(made("llama3").folder)
    original.config.rope_parameters = {"rope_type": "default", "rope_theta": 5e5}
    assert "its rope_freqs.weight is not what" in refusal(lambda: verify(made("llama3").file, original))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("linear", "llama.rope.scaling.factor", 3.8),
        ("yarn", "qwen3.rope.scaling.factor", 3.0),
        ("yarn", "qwen3.rope.scaling.original_context_length", 256),
        ("gemma3", "gemma3.attention.sliding_window", 4000),
        ("gemma3", "gemma3.attention.sliding_window", 48),
        ("gemma3", "gemma3.rope.freq_base_swa", 1e6),
        ("gpt-oss", "gpt-oss.attention.sliding_window", 4000),
    ],
)
def test_it_shows_in_logits_far_into_a_text(
    made: Callable[[str], Tiny], tmp_path: Path, name: str, key: str, value: object
) -> None:
    file = with_field(made(name).file, tmp_path / "faulty.gguf", key, lambda _: value)
    assert "; logits behind " in refusal(lambda: made(name).check_far(file))


def test_a_lost_llama3_scaling_shows_far_into_a_text_alone(made: Callable[[str], Tiny], tmp_path: Path) -> None:
    file = without_tensors(made("llama3").file, tmp_path / "faulty.gguf", "rope_freqs.weight")
    made("llama3").check_far(file, CHUNK // 2)
    assert "; logits behind 896 tokens: " in refusal(lambda: made("llama3").check_far(file))


def test_a_file_ends_where_llama_cpp_would_need_a_window(
    made: Callable[[str], Tiny], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = made("mistral")
    assert tiny.context == 512
    with opened(tiny.file) as file:
        assert llama_cpp.llama_model_n_ctx_train(file.weights.model) == 512
        assert llama_cpp.llama_model_n_swa(file.weights.model) == 0
    tiny.check_far(length=512)
    assert "; logits behind " in refusal(lambda: tiny.check_far(length=1024))


def test_the_text_is_as_long_as_what_it_shows() -> None:
    def length(name: str, context: int = 4096, **changes: Any) -> int:
        config = CONFIGS[name]()
        for key, value in changes.items():
            setattr(config, key, value)
        return far_tokens(config, context)

    assert length("llama3") == SCALED
    assert length("llama3", context=700) == 700
    assert length("llama3", rope_parameters={"rope_theta": 1e4}) == 0
    assert length("llama3", rope_parameters={"rope_theta": 1e4, "rope_type": "dynamic", "factor": 2.0}) == 0
    assert length("longrope") == 512  # where its factors change
    assert length("gemma3") == 64 + BEHIND
    assert length("gpt-oss") == SCALED
    assert length("mistral") == 512 + BEHIND
    assert length("mistral", context=512) == 0
    assert length("mistral", sliding_window=4000) == 4096
    assert length("mistral", context=32768, max_position_embeddings=32768, sliding_window=LONGEST) == 0

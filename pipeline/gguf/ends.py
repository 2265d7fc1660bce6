"""Tokens that end an answer, of which llama.cpp must be told: it knows those of most families by their text."""
# ruff: noqa: RUF001

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# As llama-cpp-python 0.3.36 has them in llama-vocab.cpp.
KNOWN = {
    "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>",
    "<|calls|>", "<|flush|>", "<end_of_turn>", "<turn|>", "<eos>", "</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~[",
    "<end_of_utterance>", "<|tool_response>", "<｜end▁of▁sentence｜>",
}  # fmt: skip
# A file's keys for others, meant for the ends of a message and of a turn. Those of KNOWN stay ends beside them.
KEYS = ("tokenizer.ggml.eom_token_id", "tokenizer.ggml.eot_token_id")


def told_ends(model: Path, config: Mapping[str, object], metadata: Mapping[str, Any]) -> dict[str, int]:
    """Return the keys that a file must have besides, so that each of the model's ends is one in llama.cpp.

    Args:
        model: its folder, whose generation_config.json says what ends an answer.
        config: its configuration, which says it where there is no such file.
        metadata: the file's keys so far.

    Raises:
        ValueError: there are more such ends than keys.
    """
    tokens = [token.decode() if isinstance(token, bytes) else token for token in metadata["tokenizer.ggml.tokens"]]
    declared = {metadata.get(key) for key in ("tokenizer.ggml.eos_token_id", *KEYS)}
    ends = [end for end in end_ids(model, config) if end < len(tokens) and end not in declared]
    unknown = [end for end in ends if tokens[end] not in KNOWN]
    free = [key for key in KEYS if key not in metadata]
    if len(unknown) > len(free):
        texts = ", ".join(repr(tokens[end]) for end in unknown)
        raise ValueError(
            f"llama.cpp does not know {texts} as ends of an answer, and a file can name {len(free)} of them; take the"
            " others out of eos_token_id in generation_config.json"
        )
    return dict(zip(free, unknown, strict=False))


def end_ids(model: Path, config: Mapping[str, object]) -> list[int]:
    """Return the ids of `eos_token_id` in generation_config.json, or in the configuration where it has none."""
    path = model / "generation_config.json"
    ends = (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else config).get("eos_token_id")
    return ends if isinstance(ends, list) else [ends] if isinstance(ends, int) else []

"""Makes GGUF models of a few hundred kilobytes for tests: Llama's architecture, a vocabulary of bytes, Llama 3's marks.

`write_random` has random weights, so that its answers depend on every token of the prompt. `write_scripted` recites a
text: its layers add nothing to the embedding, which is one-hot, and the output matrix maps each token to the one that
follows it. `python tests/helpers/tiny_gguf.py FOLDER` writes one of each to try the server with.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
ACCENTS = "é€😀"  # two, three and four bytes; all nine differ
FAREWELL = "So long, and thanks for all the notes."
BOS, EOT, NEWLINE = 256, 260, 10
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{% generation %}{{- message['content'] + '<|eot_id|>' }}{% endgeneration %}"
    "{%- else %}{{- message['content'] + '<|eot_id|>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)


def byte_to_char() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write_random(
    path: Path,
    seed: int = 0,
    template: str | None = CHAT_TEMPLATE,
    width: int = 64,
    context: int = 512,
    pooling: gguf.PoolingType | None = None,
) -> Path:
    """A model with random weights, trained for `context` tokens as it says; with `pooling` it makes vectors."""
    layers = 2
    rng = np.random.default_rng(seed)
    vocabulary = 256 + len(SPECIAL)
    tensors = {
        name: rng.normal(0, 3.2 * width**-0.5, shape).astype(np.float32)
        for name, shape in _shapes(vocabulary, width, layers).items()
    }
    return _write(path, tensors, [], context, width, layers, template, pooling)


def write_scripted(
    path: Path,
    script: Sequence[bytes],
    loop: bool = False,
    context: int = 512,
    template: str = CHAT_TEMPLATE,
    marks: Sequence[bytes] = (),
) -> Path:
    """A model that answers anything with the script's tokens, each different, once or for ever.

    Single bytes are tokens already; longer ones are added to the vocabulary, those that are `marks` as control tokens.
    """
    words = [token for token in script if len(token) > 1]
    chain = [NEWLINE] + [
        256 + len(SPECIAL) + words.index(token) if len(token) > 1 else token[0] for token in script
    ]  # the prompt ends with a newline
    vocabulary = 256 + len(SPECIAL) + len(words)
    width = -(-vocabulary // 32) * 32
    tensors = {name: np.zeros(shape, np.float32) for name, shape in _shapes(vocabulary, width, 1).items()}
    tensors["token_embd.weight"][:, :vocabulary] = np.eye(vocabulary)
    for token, following in zip(chain, [*chain[1:], chain[1] if loop else EOT], strict=True):
        tensors["output.weight"][following, token] = 1
    return _write(path, tensors, words, context, width, 1, template, marks=marks)


def write_encoder(path: Path, pooling: gguf.PoolingType, width: int = 32, context: int = 64) -> Path:
    """A model of BERT's kind with random weights, which reads a text both ways; its words are the letters."""
    rng = np.random.default_rng(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"\u2581{chr(code)}" for code in range(97, 123))]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(1)
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * 26)
    for add, token in zip(
        (writer.add_unk_token_id, writer.add_bos_token_id, writer.add_sep_token_id), (1, 2, 3), strict=True
    ):
        add(token)
    writer.add_add_bos_token(True)
    for name, rows in (("token_embd", len(words)), ("position_embd", context), ("token_types", 1)):
        writer.add_tensor(f"{name}.weight", rng.normal(0, 1, (rows, width)).astype(np.float32))
    layers = [f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")]
    for name in layers:
        writer.add_tensor(f"{name}.weight", rng.normal(0, width**-0.5, (width, width)).astype(np.float32))
    norms = ["token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"]
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    for name in [*layers, *norms]:
        writer.add_tensor(f"{name}.bias", np.zeros(width, np.float32))
    return _written(writer, path)


def write_vocabulary(path: Path, words: Sequence[bytes], architecture: str = "llama", /, **says: str | bool) -> Path:
    """A byte-level vocabulary without a model; `says` has keys of `tunesmith.tokenizer`."""
    writer = gguf.GGUFWriter(path, architecture)
    _add_vocabulary(writer, words)
    return _only_keys(writer, says, path)


def write_other(path: Path, architecture: str, **says: str | bool | int) -> Path:
    """A file with one tensor that is no whole model; `says` has keys, with __ for their dots."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, said in says.items():
        adds = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
        adds[type(said)](key.replace("__", "."), said)
    writer.add_tensor("weight", np.ones((4, 32), np.float32))
    return _written(writer, path)


def split(path: Path, count: int) -> list[Path]:
    """The parts of a model, beside it, named and written as llama.cpp's gguf-split does; the first has no tensors."""
    whole = gguf.GGUFReader(path)
    share = -(-len(whole.tensors) // (count - 1))
    parts = [path.with_name(f"{path.stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    for number, part in enumerate(parts):
        writer = gguf.GGUFWriter(part, "llama")
        for key, field in whole.fields.items() if number == 0 else ():
            if not key.startswith("GGUF.") and key != "general.architecture":
                writer.add_key_value(
                    key, field.contents(), field.types[0], field.types[-1] if field.types[1:] else None
                )
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(whole.tensors))
        for tensor in whole.tensors[max(number - 1, 0) * share : number * share]:
            writer.add_tensor(tensor.name, tensor.data)
        _written(writer, part)
    return parts


def write_pieces(path: Path, pieces: Sequence[str], special: Sequence[str], **says: str | bool) -> Path:
    """A vocabulary of SentencePiece's kind without a model: <unk>, <s>, </s>, bytes, special tokens, pieces."""
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *special, *pieces]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * (259 + len(special)) + [-float(rank) for rank in range(len(pieces))])
    writer.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
        + [kinds.BYTE] * 256
        + [kinds.CONTROL] * len(special)
        + [kinds.NORMAL] * len(pieces)
    )
    writer.add_bos_token_id(1)
    writer.add_add_space_prefix(False)
    return _only_keys(writer, says, path)


def _only_keys(writer: gguf.GGUFWriter, says: dict[str, str | bool], path: Path) -> Path:
    for key, said in says.items():
        add = writer.add_bool if isinstance(said, bool) else writer.add_string
        add(f"tunesmith.tokenizer.{key}", said)
    return _written(writer, path)


def _written(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    if any(writer.tensors):
        writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes(vocabulary: int, width: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, width),
        "output.weight": (vocabulary, width),
    }
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            shapes[f"blk.{layer}.{name}.weight"] = (width, width)
    return shapes


def _write(
    path: Path,
    tensors: dict[str, np.ndarray],
    words: Sequence[bytes],
    context: int,
    width: int,
    layers: int,
    template: str | None = CHAT_TEMPLATE,
    pooling: gguf.PoolingType | None = None,
    marks: Sequence[bytes] = (),
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_block_count(layers)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    _add_vocabulary(writer, words, marks)
    if template is not None:
        writer.add_chat_template(template)
    norms = [f"blk.{layer}.{name}.weight" for layer in range(layers) for name in ("attn_norm", "ffn_norm")]
    for name in [*norms, "output_norm.weight"]:
        writer.add_tensor(name, np.ones(width, np.float32))
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    return _written(writer, path)


def _add_vocabulary(writer: gguf.GGUFWriter, words: Sequence[bytes], marks: Sequence[bytes] = ()) -> None:
    chars = byte_to_char()
    text = chars + SPECIAL + ["".join(chars[byte] for byte in word) for word in words]
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(text)
    kinds = [control if word in marks else normal for word in words]
    writer.add_token_types([normal] * 256 + [control] * len(SPECIAL) + kinds)
    writer.add_token_merges([f"{chars[ord('q')]} {chars[ord('q')]}"])  # llama.cpp wants one at least; "qq" is no token
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOT)
    writer.add_add_bos_token(True)  # as Llama 3 says, whose template writes one too


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    prose = (
        "Certainly, here comes a short tune about learning small things well: first we listen, then play every note"
        " slowly until our fingers remember, and finally let the melody sing."
    )
    write_scripted(folder / "reciter.gguf", [f" {word}".encode() for word in prose.split()])
    write_random(folder / "random.gguf")

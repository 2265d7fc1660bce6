"""Each family's tokenizer as its folder on a hub has it: tokenizer.json or tokenizer.model, settings, template.

What package indexes and llama.cpp's sources do not have (a template, a SentencePiece model, names of added tokens) is
put together here from what is known of the family.
"""

import base64
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import packages
from packages import Package, fetched
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, TokenizersBackend
from transformers.convert_slow_tokenizer import bytes_to_unicode

from llama.source import llama_cpp_tree

TEMPLATES = Path(__file__).parent / "templates"
STRING, ARRAY = 8, 9  # kinds of GGUF's values, and the letters that struct has for its numbers
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # kinds of pieces, in SentencePiece and GGUF alike


def llama_3(folder: Path) -> None:
    """The package has Llama 3's names of the reserved tokens; from 3.1 on three of them are put to use."""
    _copy(packages.LLAMA_3, folder)
    reserved = [*range(128002, 128006), 128008, *range(128010, 128256)]
    named = {128004: "<|finetune_right_pad_id|>", 128008: "<|eom_id|>", 128010: "<|python_tag|>"}
    unnamed = [at for at in reserved if at not in named]
    _rename(folder, named | {at: f"<|reserved_special_token_{n}|>" for n, at in enumerate(unnamed)})
    _template(folder, _llama_cpp("meta-llama-Llama-3.2-3B-Instruct"))


def llama_2(folder: Path) -> None:
    _llama_2(folder)
    _template(folder, (TEMPLATES / "llama-2.jinja").read_text())


def qwen_3(folder: Path) -> None:
    _copy(packages.QWEN_3, folder)
    _template(folder, _llama_cpp("Qwen-Qwen3-0.6B"))


def qwen_2_5(folder: Path) -> None:
    """Qwen 3's, less what came with it: ids from 151665 on."""
    _copy(packages.QWEN_3, folder)
    _edit(folder / "tokenizer.json", lambda made: _keep_below(made, 151665))
    _edit(folder / "tokenizer_config.json", lambda made: made.pop("added_tokens_decoder", None))
    _template(folder, _llama_cpp("Qwen-Qwen2.5-7B-Instruct"))


def gemma_3(folder: Path) -> None:
    """With the SentencePiece model that tokenizer.json was converted from; merges there go by the order of ids."""
    _copy(packages.GEMMA_3, folder)
    made = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token["special"] for token in made["added_tokens"]}
    pieces = sorted(made["model"]["vocab"], key=made["model"]["vocab"].get)
    _sentencepiece(folder, ((piece, float(-at), _kind(piece, added.get(at))) for at, piece in enumerate(pieces)))


def gemma_4(folder: Path) -> None:
    fields = _vocabulary("gemma-4")
    tokenizer = _bpe(fields, fuse_unk=True, byte_fallback=True, unk_token="<unk>")
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    special: dict[str, Any] = {"bos_token": "<bos>", "eos_token": "<turn|>", "unk_token": "<unk>", "pad_token": "<pad>"}
    special["extra_special_tokens"] = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    _save(folder, tokenizer, _llama_cpp("google-gemma-4-31B-it"), **special)


def mistral_v0_3(folder: Path) -> None:
    """Of the SentencePiece model, as Transformers makes it."""
    shutil.copy(fetched(packages.MISTRAL) / "mistral_instruct_tokenizer_240323.model.v3", folder / "tokenizer.model")
    _of_sentencepiece(folder)
    _template(folder, (TEMPLATES / "mistral-v0.3.jinja").read_text())


def mistral_nemo(folder: Path) -> None:
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"]
    special += ["[/TOOL_RESULTS]", "[TOOL_CALLS]", "<pad>", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"]
    _tekken(folder, "tekken_240718.json", special, _llama_cpp("mistralai-Mistral-Nemo-Instruct-2407"))


def ministral_3(folder: Path) -> None:
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"]
    special += ["[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"]
    special += ["[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"]
    special += [f"<SPECIAL_{at}>" for at in range(20, 32)] + ["[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"]
    _tekken(folder, "tekken_240911.json", special, _llama_cpp("mistralai-Ministral-3-14B-Reasoning-2512"))


def phi_3_5(folder: Path) -> None:
    """Llama 2's with Phi's own tokens, which take the space after them along."""
    _llama_2(folder)
    fields = _vocabulary("phi-3")
    own = [(at, text) for at, text in enumerate(fields["tokens"]) if at >= 32000 and not text.startswith("[PAD")]
    plain = {"single_word": False, "lstrip": False, "normalized": False}
    added = [{"id": at, "content": text, "rstrip": at > 32000, "special": True, **plain} for at, text in own]

    def add(made: dict[str, Any]) -> None:
        made["added_tokens"][2] |= {"rstrip": True, "special": False}  # </s>
        made["added_tokens"] += added

    _edit(folder / "tokenizer.json", add)
    _configure(folder, eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<unk>")
    _template(folder, _llama_cpp("microsoft-Phi-3.5-mini-instruct"))


def phi_4_mini(folder: Path) -> None:
    """Over o200k, as gpt-oss's is, with Phi's own tokens."""
    _copy(packages.GPT_OSS, folder)
    own = {199999: "<|endoftext|>", 200018: "<|endofprompt|>", 200019: "<|assistant|>", 200020: "<|end|>"}
    own |= {200021: "<|user|>", 200022: "<|system|>", 200023: "<|tool|>", 200024: "<|/tool|>"}
    own |= {200025: "<|tool_call|>", 200026: "<|/tool_call|>", 200027: "<|tool_response|>", 200028: "<|tag|>"}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": at, "content": text, **plain} for at, text in own.items()]

    def replace(made: dict[str, Any]) -> None:
        made["added_tokens"] = added
        made["model"]["vocab"] |= {text: at for at, text in own.items()}  # there are ids between them that nothing has

    _edit(folder / "tokenizer.json", replace)
    _edit(folder / "tokenizer_config.json", lambda made: made.pop("added_tokens_decoder", None))
    end = "<|endoftext|>"
    _configure(folder, tokenizer_class="GPT2Tokenizer", bos_token=end, eos_token=end, pad_token=end, unk_token=end)
    _template(folder, (TEMPLATES / "phi-4-mini.jinja").read_text())


def smollm_2(folder: Path) -> None:
    fields = _fields(fetched(packages.SMOLLM_2) / packages.SMOLLM_2.files[0])
    tokenizer = _digit_by_digit(_bpe(fields))
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    _save(folder, tokenizer, fields["chat_template"], unk_token="<|endoftext|>", **special)


def smollm_3(folder: Path) -> None:
    """Llama 3's, with reserved tokens put to use."""
    _copy(packages.LLAMA_3, folder)
    names = {128002: "<think>", 128003: "</think>", 128011: "<|im_start|>", 128012: "<|im_end|>"}
    names |= {128013: "<tool_response>", 128014: "</tool_response>", 128015: "<tool_call>", 128016: "</tool_call>"}
    _rename(folder, names)
    _edit(folder / "tokenizer.json", _add_no_bos)
    _configure(folder, bos_token="<|begin_of_text|>", eos_token="<|im_end|>", pad_token="<|im_end|>")
    _template(folder, _llama_cpp("HuggingFaceTB-SmolLM3-3B"))


def granite_3_3(folder: Path) -> None:
    """StarCoder's, as Refact has it too, with Granite's own tokens."""
    fields = _vocabulary("refact")
    end, own = "<|end_of_text|>", ["<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"]
    own += [f"<|{side}_of_{what}|>" for what in ("cite", "plugin") for side in ("start", "end")]
    fields["tokens"] = [end, *fields["tokens"][1:49152], *own]
    fields["token_type"] = [*fields["token_type"][:49152], *[CONTROL] * len(own)]
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), end)
    _save(folder, _digit_by_digit(_bpe(fields)), _llama_cpp("ibm-granite-granite-3.3-2B-Instruct"), **special)


def deepseek(folder: Path) -> None:
    """As byte-level BPE, which it is; its settings say Llama's class, under which Transformers drops its spaces."""
    _copy(packages.DEEPSEEK_V3, folder)
    _configure(folder, tokenizer_class="PreTrainedTokenizerFast")


def gpt_oss(folder: Path) -> None:
    _copy(packages.GPT_OSS, folder)
    _template(folder, _llama_cpp("openai-gpt-oss-120b"))


def _copy(package: Package, folder: Path) -> None:
    for name in package.files:
        shutil.copy(fetched(package) / name, folder / name)


def _template(folder: Path, template: str) -> None:
    """The template in a file of its own, which is where hubs have it now."""
    _edit(folder / "tokenizer_config.json", lambda made: made.pop("chat_template", None))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _configure(folder: Path, **settings: str) -> None:
    _edit(folder / "tokenizer_config.json", lambda made: made.update(settings))


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    made = json.loads(path.read_text(encoding="utf-8"))
    change(made)
    path.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")


def _keep_below(made: dict[str, Any], end: int) -> None:
    made["added_tokens"] = [token for token in made["added_tokens"] if token["id"] < end]


def _add_no_bos(made: dict[str, Any]) -> None:
    made["post_processor"] = made["post_processor"]["processors"][0]


def _rename(folder: Path, names: dict[int, str]) -> None:
    """Gives special tokens other names, by their ids."""

    def rename(made: dict[str, Any]) -> None:
        for token in made["added_tokens"]:
            token["content"] = names.get(token["id"], token["content"])

    _edit(folder / "tokenizer.json", rename)
    _edit(folder / "tokenizer_config.json", lambda made: made.pop("added_tokens_decoder", None))


def _llama_cpp(name: str) -> str:
    """A chat template of llama.cpp's own tests."""
    return (llama_cpp_tree() / f"models/templates/{name}.jinja").read_text(encoding="utf-8")


def _vocabulary(name: str) -> dict[str, Any]:
    return _fields(llama_cpp_tree() / f"models/ggml-vocab-{name}.gguf")


def _fields(path: Path) -> dict[str, Any]:
    """What a GGUF says of its tokenizer, by the last part of each key; gguf's own reader takes a minute for some."""
    with path.open("rb") as file:
        *_, count = struct.unpack("<4sIQQ", file.read(24))
        fields = {_value(file, STRING): _value(file, *struct.unpack("<I", file.read(4))) for _ in range(count)}
    return {key.split(".")[-1]: value for key, value in fields.items() if key.startswith("tokenizer.")}


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        (length,) = struct.unpack("<Q", file.read(8))
        return file.read(length).decode()
    if kind == ARRAY:
        kind, length = struct.unpack("<IQ", file.read(12))
        return [_value(file, kind) for _ in range(length)]
    (value,) = struct.unpack(f"<{NUMBERS[kind]}", file.read(struct.calcsize(NUMBERS[kind])))
    return value


def _bpe(fields: dict[str, Any], **options: Any) -> Tokenizer:
    """A BPE tokenizer with a GGUF's vocabulary, merges and special tokens."""
    vocabulary = {token: at for at, token in enumerate(fields["tokens"])}
    merges = [tuple(merge.split(" ")) for merge in fields["merges"]]
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, **options))
    kinds = zip(fields["tokens"], fields["token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token, kind in kinds if kind == CONTROL])
    kinds = zip(fields["tokens"], fields["token_type"], strict=True)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token, kind in kinds if kind == USER_DEFINED])
    return tokenizer


def _digit_by_digit(tokenizer: Tokenizer) -> Tokenizer:
    """With GPT-2's split into words, and each digit a word."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _tekken(folder: Path, file: str, special: list[str], template: str) -> None:
    """Mistral's tekken: ranked byte strings behind a thousand special tokens."""
    given = json.loads((fetched(packages.MISTRAL) / file).read_text(encoding="utf-8"))
    settings = given["config"]
    reserved = settings["default_num_special_tokens"]
    letters = bytes_to_unicode()
    ranked = [base64.b64decode(entry["token_bytes"]) for entry in given["vocab"]]
    ranked = ranked[: settings["default_vocab_size"] - reserved]
    names = ["".join(letters[byte] for byte in token) for token in ranked]
    special = special + [f"<SPECIAL_{at}>" for at in range(len(special), reserved)]
    vocabulary = {token: at for at, token in enumerate([*special, *names])}
    known = set(names)
    merges = [
        (name[:at], name[at:])
        for name in names
        for at in range(1, len(name))
        if known.issuperset((name[:at], name[at:]))
    ]
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(settings["pattern"]), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    _save(folder, tokenizer, template, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def _save(folder: Path, tokenizer: Tokenizer, template: str, **special: Any) -> None:
    made = TokenizersBackend(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
    made.chat_template = template
    made.save_pretrained(folder)


def _llama_2(folder: Path) -> None:
    """Llama 2's vocabulary, whose file in llama.cpp's sources has what SentencePiece's has."""
    fields = _vocabulary("llama-spm")
    _sentencepiece(
        folder, zip(fields["tokens"], fields["scores"], fields["token_type"], strict=True), dummy_prefix=True
    )
    _of_sentencepiece(folder)


def _of_sentencepiece(folder: Path) -> None:
    """Transformers' files beside a tokenizer.model, as it makes them."""
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "unk_token": "<unk>"}
    settings |= {"bos_token": "<s>", "eos_token": "</s>", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)


def _kind(piece: str, special: bool | None) -> int:
    """A piece's kind by what tokenizer.json says of it; `special` is None for what is no added token."""
    if piece == "<unk>":
        return UNKNOWN
    if special is not None:
        return CONTROL if special else USER_DEFINED
    return BYTE if re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else NORMAL


def _sentencepiece(folder: Path, pieces: Iterable[tuple[str, float, int]], dummy_prefix: bool = False) -> None:
    """Writes tokenizer.model: pieces with their scores and kinds."""
    model = sentencepiece_model_pb2.ModelProto()
    for piece, score, kind in pieces:
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(model.pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = dummy_prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())

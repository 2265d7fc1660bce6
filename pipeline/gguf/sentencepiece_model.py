"""The SentencePiece file of a tokenizer.json, which is all that Transformers 5 saves of one.

llama.cpp's converter reads Llama 2's, Mistral's, Gemma's and Phi-3's tokenizers from that file.
"""

import re
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from pipeline.gguf.tokenizer_json import Merge, TokenizerJson

proto: Any = sentencepiece_model_pb2  # whose classes are made when it is imported
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
Piece = proto.ModelProto.SentencePiece


def is_sentencepiece(tokenizer: TokenizerJson) -> bool:
    """Return whether what tokenizer.json holds was made by SentencePiece, with bytes for what it has no piece for."""
    model = tokenizer.get("model", {})
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def write_sentencepiece(tokenizer: TokenizerJson, file: Path) -> None:
    """Write the vocabulary of a tokenizer.json as a SentencePiece model.

    Args:
        tokenizer: what tokenizer.json holds; see `is_sentencepiece`.
        file: to write. Tokens that were added after the vocabulary have no place in it.
    """
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    unknown = tokenizer["model"].get("unk_token")
    special = {token["content"]: token["special"] for token in tokenizer["added_tokens"]}
    scores = piece_scores(tokenizer["model"]["merges"])
    model = proto.ModelProto()
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(vocabulary)
    for text, index in sorted(vocabulary.items(), key=lambda pair: pair[1]):
        if text == unknown:
            kind = Piece.UNKNOWN
            model.trainer_spec.unk_id, model.trainer_spec.unk_piece = index, text
        elif text in special:
            kind = Piece.CONTROL if special[text] else Piece.USER_DEFINED
        else:
            kind = Piece.BYTE if BYTE.fullmatch(text) else Piece.NORMAL
        model.pieces.add(piece=text, score=scores.get(text, 0.0), type=kind)
    file.write_bytes(model.SerializeToString())


def piece_scores(merges: list[Merge]) -> dict[str, float]:
    """Return what SentencePiece goes by, the highest first, where Transformers goes by the order of merges."""
    scores: dict[str, float] = {}
    for rank, merge in enumerate(merges):
        scores.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(rank))
    return scores

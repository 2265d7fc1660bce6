"""What a GGUF file is, where it is no model that answers: by its header, without its tensors."""

from llama.header import Header

PROJECTOR = "a projector of images or sound"
EMBEDDING = "an embedding model that does not say how its tokens become one vector"
POOLINGS = (1, 2, 3)  # how they do: as the mean of all, the first or the last, llama.cpp's LLAMA_POOLING_TYPE
RANKS = 4
# By general.type, which writers put into all that are no models.
TYPES = {
    "imatrix": "an importance matrix, which quantizing takes",
    "mmproj": PROJECTOR,
}
# By general.architecture: what has no type of its own, or came before there were types.
ARCHITECTURES = {
    "clip": PROJECTOR,
    "controlvector": "a control vector",
    "gemma4-assistant": "a draft for a larger model",
    "t5": "an encoder with a decoder",
    "t5encoder": "an encoder",
    "wavtokenizer-dec": "a decoder of sound",
}


def what_else(header: Header) -> str | None:
    """Return what a file is; None for a model that goes on with texts, or turns them into vectors."""
    name, keys = header.architecture, header.keys
    if kind := TYPES.get(str(keys.get("general.type"))) or ARCHITECTURES.get(name):
        return kind
    if not name:
        return "of no architecture"
    if not header.tensors:
        return "a vocabulary without a model"
    if embeds(header):
        return None
    if keys.get(f"{name}.pooling_type") == RANKS:
        return "a model that ranks texts"
    if "bert" in name or "embed" in name or keys.get(f"{name}.pooling_type"):
        return EMBEDDING
    if keys.get(f"{name}.attention.causal") is False:
        return "a model that does not write from left to right"
    if keys.get("tokenizer.ggml.model", "none") in ("none", "no_vocab"):
        return "a model without a vocabulary"
    return None


def embeds(header: Header) -> bool:
    """Return whether a file is a model that turns a text into one vector."""
    return header.keys.get(f"{header.architecture}.pooling_type") in POOLINGS


def is_adapter(header: Header) -> bool:
    """Return whether a file is an adapter, which a model is needed for."""
    return header.keys.get("general.type") == "adapter"

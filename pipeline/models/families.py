"""What is known of families of models by name: a row each.

Most is found out from a model itself, and a model of no family trains, exports and chats. A row is for what cannot be
found out; what happens without one stands beside each field of `Family`. Licences stand in
pipeline/publishing/licences.py, where they make no training due; patterns that the chat splits by itself in
llama/byte_pairs.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is known of a family; what is left out is nothing out of the ordinary, or found out."""

    name: str
    # What llama.cpp calls its types of models in Transformers, where that is another name. Without: a line at the
    # export says that the name was not checked; sizes, tokens and logits are.
    gguf: Mapping[str, str] = field(default_factory=dict)
    # By what its tokenizer splits texts into words, as tokenizer.json has it, or the name of that in
    # llama/byte_pairs.py where llama.cpp does it otherwise; and llama.cpp's name for the nearest. Without: the
    # converter goes by a hash over a sample, and refuses what it does not know.
    split: str | None = None
    words: str | None = None
    pre: str | None = None
    # Tokens that it keeps for padding, best first. Without: EOS pads, which labels and masks leave out there.
    padding: tuple[str, ...] = ()
    # What its templates call the switch that turns thinking off. Without: a line of the training's plan says so, and
    # answers without reasoning are learnt behind the prompt that the template has by itself.
    brief: Mapping[str, bool] = field(default_factory=dict)
    # What its templates call the list of tools besides `tools`. Without: a row with tools is refused, as the template
    # leaves them out.
    tools: tuple[str, ...] = ()
    # What its configuration calls that which its head does besides. Without: training and evaluation find it out from
    # the logits, and the plan says that the model learns by its own loss.
    head: tuple[str, ...] = ()


_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DIGITS_BY_THREES = rf"{_WORDS}\p{{N}}{{1,3}}{_REST}"
DIGITS_SINGLY = rf"{_WORDS}\p{{N}}{_REST}"

# Of the padding tokens that a vocabulary has, that of the first row is taken.
FAMILIES = (
    Family(
        name="Llama 3",
        split=DIGITS_BY_THREES,
        pre="llama-bpe",
        padding=("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>"),
    ),
    Family(
        name="Gemma",
        padding=("<pad>",),
        head=("final_logit_softcapping",),
    ),
    Family(
        name="Qwen",
        split=DIGITS_SINGLY,
        pre="qwen2",
        padding=("<|endoftext|>",),
        brief={"enable_thinking": False},
    ),
    Family(
        name="Mistral",
        gguf={"mistral": "llama", "mixtral": "llama", "ministral3": "mistral3"},
        words="tekken",
        pre="tiny_aya",  # by llama.cpp's own "tekken" 3,422 of Mistral Nemo's tokens are not read as one, by this none
        padding=("<unk>",),
    ),
    Family(
        name="Phi",
        gguf={"phi": "phi2"},
    ),
    Family(
        name="Granite",
        gguf={"granitemoehybrid": "granitehybrid", "granitemoeshared": "granitemoe"},
        brief={"thinking": False},
        head=("logits_scaling",),
    ),
    Family(
        name="DeepSeek",
        gguf={"deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2"},
        brief={"thinking": False},
    ),
    Family(
        name="GPT-OSS",
        words="o200k",
        pre="granite-embed-multi-97m",  # by "gpt-4o", the converter's, 11,001 tokens are not read as one, by this 27
    ),
    Family(name="SmolLM3", tools=("xml_tools",)),
    Family(name="Cohere", gguf={"cohere": "command-r"}, head=("logit_scale",)),
    Family(name="Falcon H1", head=("lm_head_multiplier",)),
    Family(name="RecurrentGemma", head=("logits_soft_cap",)),
    Family(name="xLSTM", head=("output_logit_soft_cap",)),
)


def gguf_names() -> dict[str, str]:
    """Return llama.cpp's names for model types of Transformers that it calls otherwise."""
    return {kind: name for family in FAMILIES for kind, name in family.gguf.items()}


def pre_tokenizers() -> dict[str, str]:
    """Return llama.cpp's pre-tokenizers by the pattern that they split by, or by its name in llama/byte_pairs.py."""
    return {how: family.pre for family in FAMILIES if family.pre and (how := family.split or family.words)}


def padding_tokens() -> list[str]:
    """Return the tokens that are kept for padding, best first."""
    return [token for family in FAMILIES for token in family.padding]


def brief_switches() -> dict[str, bool]:
    """Return what templates are told so that they do not think, by all names that it has."""
    return {name: value for family in FAMILIES for name, value in family.brief.items()}


def tools_names() -> list[str]:
    """Return what templates call the list of tools besides `tools`."""
    return [name for family in FAMILIES for name in family.tools]


def head_keys() -> list[str]:
    """Return what configurations call that which heads do besides multiplying."""
    return [key for family in FAMILIES for key in family.head]

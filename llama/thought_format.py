r"""How a model's chat template writes what is thought before an answer, found by letting it write some.

    <think>\n…\n</think>\n\nanswer                                                    Qwen, DeepSeek, GLM
    [THINK]…[/THINK]answer                                                            Mistral
    <|START_THINKING|>…<|END_THINKING|><|START_RESPONSE|>answer                       Command R7B
    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>answer      gpt-oss
    <|open|>think<|sep|>…<|close|>think<|sep|><|open|>response<|sep|>answer<|close|>response<|sep|>…     Kimi K3

and so on. Templates take thoughts under several names, and some as parts of the content. Those that take none, but
begin the thought themselves or speak of `<think>`, are of models that write it so.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from llama.call_format import outside_tag
from llama.calls import ASKED, QUESTION, CallForm, Message, Render, probe
from llama.marks import CLOSING, TAG, common_beginning

ANSWER, PROBE = "\ue000", "\ue001"  # which no template writes of itself
THOUGHT = "reasoning_content"  # of a message, as clients have it
FIELDS = (THOUGHT, "reasoning", "thinking", "thought")  # and as templates do
PARTS, BLOCKS = "parts", "blocks"  # or a part of the content: as Mistral's and as Apertus' templates take it
NAMED = {field: field for field in FIELDS} | {PARTS: "'thinking'", BLOCKS: "'thoughts'"}  # in a template's source
ANY_TAG = rf"(?:{TAG}|\[[/A-Z_]+\])"
FIRST_TAG, LAST_TAG = re.compile(rf"^\s*{ANY_TAG}"), re.compile(rf"{ANY_TAG}\s*$")
LONGEST = 200  # characters of a mark: more is no mark


@dataclass(frozen=True)
class ThoughtFormat:
    """What a model writes around what it thinks, less white space."""

    open: str
    close: str
    lead: str = ""  # before what it says, where that has a mark of its own
    field: str | None = None  # in which the template takes it: one of FIELDS, PARTS or BLOCKS; None: in none
    ends: tuple[str, ...] = ()  # after what it says, where these are no control tokens

    @property
    def marks(self) -> tuple[str, ...]:
        """All of it."""
        return self.open, self.close, self.lead, *self.ends

    def begun(self, turn: Mapping[str, object]) -> str:
        """Return an assistant's turn that is to be gone on with as the model writes it."""
        return self.written(str(turn.get(THOUGHT, "")), str(turn["content"]))

    def written(self, thought: str, said: str) -> str:
        """Return an answer as the model writes it; where nothing is said yet, the thought goes on."""
        if not thought:
            return said
        begun = f"{self.open}\n{thought}"
        return f"{begun}\n{self.close}\n\n{self.lead}{said}" if said else begun

    def opens(self, text: str) -> bool:
        """Return whether a text ends within a thought: it opens one later than it closes any."""
        return text.rfind(self.open) > text.rfind(self.close)


TAGS = ThoughtFormat("<think>", "</think>")


def find_thoughts(
    render: Render, refusal: type[Exception], source: str, call_form: Callable[[], CallForm | None]
) -> ThoughtFormat | None:
    """Return how a template writes thoughts; None of one that knows of none.

    Args:
        render: writes messages, with the prompt for an answer or without.
        refusal: what it raises where the template refuses.
        source: the template's.
        call_form: returns how it takes calls, if it does: some templates keep thoughts only before those.
    """
    fields = [field for field, name in NAMED.items() if name in source]

    def probed(asked: list[Message], turn: Message) -> ThoughtFormat | None:
        with suppress(refusal):
            prompt, plain = render(asked, True), render([*asked, turn], False)
            for field in fields:
                with suppress(refusal):
                    text = render([*asked, thinking_turn(field, turn, PROBE)], False)
                    if found := _marks(text, prompt, plain, field):
                        return found
        return None

    if fields and (found := probed([QUESTION], {"role": "assistant", "content": ANSWER})):
        return found
    if fields and (form := call_form()) and (found := probed(ASKED, probe(form))):
        return found
    return TAGS if TAGS.open in source or TAGS.close in source else None


def thinking_turn(field: str | None, turn: Message, thought: str) -> Message:
    """Return an assistant's turn with what was thought before it, where a template takes it."""
    turn = {name: value for name, value in turn.items() if name != THOUGHT}
    said = turn.get("content")
    if field == PARTS:
        parts = [{"type": "thinking", "thinking": thought}, *([{"type": "text", "text": said}] if said else [])]
        return turn | {"content": parts}
    if field == BLOCKS:
        blocks = [{"type": "thoughts", "text": thought}, *([{"type": "response", "text": said}] if said else [])]
        return turn | {"content": {"blocks": blocks}}
    return turn | {field or THOUGHT: thought}


def _marks(text: str, prompt: str, plain: str, field: str) -> ThoughtFormat | None:
    """Return what is written around a thought, and the field that has it; None where it is not written.

    Args:
        text: a conversation whose last turn was thought about: PROBE.
        prompt: the same without that turn, as a model is asked for it.
        plain: the same without the thought.
        field: in which it was given.
    """
    before, thought, after = text.partition(PROBE)
    if not thought:
        return None
    rest = _beyond(plain, prompt)  # of the turn without a thought: what it says, or a call
    between = after[: len(after) - len(common_beginning(after[::-1], rest[::-1]))].strip()
    if not (close := between or (FIRST_TAG.search(after) or [""])[0].strip()):
        return None
    opened = _beyond(before, prompt).strip() or _beyond(before, plain).strip()
    begun = prompt.removeprefix(before).strip() if prompt.startswith(before) else ""  # by the prompt alone
    opened = opened or begun.partition(close)[0] or (LAST_TAG.search(before) or [""])[0].strip()
    lead, answered, end = after[after.find(close) + len(close) :].partition(ANSWER)
    marks = ThoughtFormat(opened, close, lead.strip() if answered else "", field, tuple(re.findall(CLOSING, end)))
    return marks if 0 < len(opened) <= LONGEST and len(close) <= LONGEST else None


def _beyond(text: str, other: str) -> str:
    """Return what a text goes on with where it and another one no longer are alike, from the tag on that this is in."""
    at = len(common_beginning(text, other))
    return text[outside_tag(text, at) :]

"""What the assistant says in a conversation, found by rendering the chat template with and without each turn.

A template is a function here, and places are characters of the text that it writes. Each turn stands behind the
conversation as the model is given it when it is to answer, history stripped as the template strips it. What comes
before the answer's own words, such as an empty `<think></think>`, is context; where the turn has reasoning, all that
follows the generation prompt is learnt. Both end with the token that ends an answer.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from llama.calls import ASKED, QUESTION, TOOLS, VALUE, CallForm, Render, form_of_calls, linked, probe
from pipeline.models.refusal import Message, RefusedError
from pipeline.models.whole import end_of_calls

Span = tuple[int, int]  # from and up to, in characters


class Parts(NamedTuple):
    """What an assistant's message holds."""

    head: str  # the reasoning in its tags, up to the answer, as it stands
    reasoning: str
    answer: str


class Said(NamedTuple):
    """A rendered conversation and where it is learnt."""

    text: str
    spans: tuple[Span, ...]


Marks = Callable[[list[Message]], Said]  # where a template marks itself what is said
Form = Callable[[Parts], Message]  # an assistant's message as a template takes it

OPEN = "<think>"
CLOSE = "\n</think>\n\n"
# A thought that a generation prompt begins and ends: its tags have one name, as in <|channel>thought\n<channel|>.
CLOSED = re.compile(r"<\|?(?:START_)?(\w+)\|?>\s*\w*\s*<[|/]?(?:END_)?\1\|?>\s*$")
THOUGHT = re.compile(r"\s*<think>\s*(?P<reasoning>.*?)\s*</think>\s*(?P<answer>.*)", re.DOTALL)
TAKEN = ("role", "content", "name", "tool_call_id")  # of what others than the assistant say
ANSWER = "\ue000answer\ue000"  # stands for one; of private use, so that no text has it
NO_CALLS = CallForm()  # by which a template that writes no calls is given some, to say so itself
THINKING = Parts('<think>\nIs it "12"?\nNo.\n</think>\n\n', 'Is it "12"?\nNo.', "It is 11.")  # JSON would escape it


def parts_of(content: str) -> Parts:
    """Return reasoning and answer of a message; an empty `<think></think>` counts as none."""
    found = THOUGHT.fullmatch(content)
    if found is None:
        return Parts("", "", content)
    head, reasoning, answer = content[: found.start("answer")], found["reasoning"], found["answer"]
    return Parts(head, reasoning, answer) if reasoning else Parts("", "", answer)


def in_fields(parts: Parts) -> Message:
    """Return reasoning in a field of its own, by each name that templates have for it."""
    named = dict.fromkeys(("reasoning_content", "thinking", "reasoning"), parts.reasoning)
    return {"role": "assistant", "content": parts.answer, **named}


def in_chunks(parts: Parts) -> Message:
    """Return reasoning as a chunk of the content, as Mistral's templates take it."""
    chunks = [{"type": "thinking", "thinking": parts.reasoning}, {"type": "text", "text": parts.answer}]
    return {"role": "assistant", "content": chunks}


def inline(parts: Parts) -> Message:
    """Return reasoning in its tags at the start of the content."""
    return {"role": "assistant", "content": parts.head + parts.answer}


def without(parts: Parts) -> Message:
    """Return the answer alone."""
    return {"role": "assistant", "content": parts.answer}


def form_of(render: Render) -> Form:
    """Return the first form of which a template shows the reasoning as it is; `without` where it shows it in none.

    Gemma 4's shows it beside tool calls alone, and in tags of its own: `<think>` would be any text to such a model.
    """
    shown = next((form for form in (in_fields, in_chunks) if _thought(render, form(THINKING))), inline)
    if shown is not inline:
        return shown
    calls = probe(form_of_calls(render, RefusedError) or NO_CALLS)["tool_calls"]
    before = _thought(render, in_fields(THINKING) | {"tool_calls": calls})
    others = before and not before.rstrip().endswith(OPEN)
    return inline if not others and _thought(render, inline(THINKING)) else without


def as_taken(messages: Sequence[Message], form: Form, calls: CallForm | None) -> list[Message]:
    """Return messages as a template with these forms takes them."""
    calls = calls or NO_CALLS
    return [_taken(message, form, calls) for message in linked(messages, calls)]


@dataclass(frozen=True)
class Marked:
    """A template that marks itself what the assistant says."""

    marks: Marks
    form: Form
    calls: CallForm | None  # None where it writes none

    def turn(self, messages: Sequence[Message], index: int) -> Said:
        """Return the conversation up to a turn of the assistant's, learnt where the template marks that turn.

        Raises:
            RefusedError: the template does not take it.
        """
        taken = as_taken(messages[: index + 1], self.form, self.calls)
        text, spans = self.marks(taken)
        answered = any(message["role"] == "assistant" for message in taken[:-1])
        own = spans[len(self.marks(taken[:-1]).spans) if answered else 0 :]
        if messages[index].get("tool_calls"):
            end = end_of_calls(text, messages[index], own[0][0] if own else len(text))
            if end > own[-1][1]:
                raise RefusedError("its marks leave out what the assistant called")
        return Said(text, own)


@dataclass(frozen=True)
class Unmarked:
    """A template that marks nothing, and how it lets the assistant speak."""

    render: Render
    ends: tuple[str, ...]  # tokens that end an answer
    end: str  # which of them it writes
    form: Form
    calls: CallForm | None  # None where it writes none
    call_end: str  # which token ends a turn that calls; nothing where none does
    question_prompt: str  # QUESTION, up to where it is answered
    unsaid: str  # how the generation prompt ends and an answer does not begin, such as an open `<think>`

    def turn(self, messages: Sequence[Message], index: int) -> Said:
        """Return the conversation up to a turn of the assistant's, with what is learnt of it.

        Raises:
            RefusedError: the template does not take it, or does not write the turn as it is.
        """
        if messages[index].get("tool_calls"):
            return self._calling(messages, index)
        history, parts = as_taken(messages[:index], self.form, self.calls), parts_of(messages[index]["content"])
        prompt = self.render(history, True)
        before, answer, after = self._written(prompt, history, parts)
        if parts.reasoning and self.form is without:
            before = self._opened(prompt) + parts.reasoning + CLOSE
        start = len(_shared(prompt, before)) if parts.reasoning else len(before)
        if parts.reasoning not in before[start:]:
            raise RefusedError("it does not write the reasoning after its generation prompt")
        end = len(before) + len(answer) + _end(after, self.ends)[0]
        return Said(before + answer + after, ((start, end),))

    def _calling(self, messages: Sequence[Message], index: int) -> Said:
        """Return a turn that calls, with all learnt that follows the generation prompt."""
        reasoning = parts_of(messages[index]["content"]).reasoning
        *history, called = as_taken(messages[: index + 1], self.form, self.calls)
        prompt = self.render(history, True)
        text = self._continued(prompt, history, called)
        start = len(prompt if text.startswith(prompt) else prompt.removesuffix(self.unsaid))
        called_to = end_of_calls(text, messages[index], start)
        if reasoning not in text[start:]:
            raise RefusedError("it does not write the reasoning after its generation prompt")
        return Said(text, ((start, called_to + _end(text[called_to:], self.ends, "call")[0]),))

    def _continued(self, prompt: str, history: list[Message], message: Message) -> str:
        """Return a conversation with one more message behind `prompt`, which some write otherwise once it is there."""
        prefix = prompt.removesuffix(self.unsaid)
        if (text := self.render([*history, message], False)).startswith(prefix):
            return text
        asked = [*(first for first in history[:1] if first["role"] == TOOLS), QUESTION]
        alone, before = self.render([*asked, message], False), self.render(asked, True).removesuffix(self.unsaid)
        if not alone.startswith(before):  # the prompt may close an empty thought that Gemma 4 writes nowhere else
            before = CLOSED.sub("", before)
        if not alone.startswith(before):
            raise RefusedError("it writes a question otherwise before a call than without one")
        return prefix + alone.removeprefix(before)

    def _written(self, prompt: str, history: list[Message], parts: Parts) -> tuple[str, str, str]:
        """Return what stands before an answer, the answer, and what stands after it.

        The model is given `prompt`. Some templates write the history otherwise once it has the answer, as Mistral's do
        with a system prompt, which goes with the last question: there the turn is taken from a conversation of its own.
        """
        before, answer, after = _around(self.render, history, parts, self.form)
        prefix = prompt.removesuffix(self.unsaid)
        if before.startswith(prefix):
            return before, answer, after
        alone, answer, after = _around(self.render, [QUESTION], parts, self.form)
        return prefix + alone[len(self.question_prompt) - len(self.unsaid) :], answer, after

    def _opened(self, prompt: str) -> str:
        """Return the generation prompt of a template that writes no reasoning, where it lets the model begin it."""
        if not prompt.rstrip().endswith(OPEN):
            raise RefusedError("it does not write the reasoning")
        return prompt if prompt[-1].isspace() else f"{prompt}\n"


@dataclass(frozen=True)
class Switched:
    """A template that is for thinking until it is told not to: what it then writes is context of rows that do not."""

    thinking: Marked | Unmarked
    brief: Marked | Unmarked  # the same, told not to

    @property
    def form(self) -> Form:
        """How it takes an assistant's message."""
        return self.thinking.form

    @property
    def calls(self) -> CallForm | None:
        """How it takes calls."""
        return self.thinking.calls

    def turn(self, messages: Sequence[Message], index: int) -> Said:
        """Return the conversation up to a turn of the assistant's, behind the prompt for what the turn has.

        Raises:
            RefusedError: the template does not take it, or does not write the turn as it is.
        """
        reasoned = parts_of(messages[index]["content"]).reasoning
        return (self.thinking if reasoned else self.brief).turn(messages, index)


def study(render: Render, ends: Sequence[str]) -> Unmarked:
    """Return how a template without marks lets the assistant speak.

    Args:
        render: the template.
        ends: the tokens that end an answer.

    Raises:
        RefusedError: it does not let turns be told from what is around them.
    """
    prompt = render([QUESTION], True)
    before, _, after = _around(render, [QUESTION], Parts("", "", THINKING.answer), without)
    shared = _shared(prompt, before)
    if str(QUESTION["content"]) not in shared:
        raise RefusedError("it writes a question otherwise before an answer than without one")
    end = _end(after, ends)[1]
    calls = form_of_calls(render, RefusedError)
    call_end = _call_end(render, calls, ends) if calls else ""
    if before == shared and CLOSED.search(prompt):
        return Unmarked(render, tuple(ends), end, without, calls, call_end, prompt, "")
    return Unmarked(render, tuple(ends), end, form_of(render), calls, call_end, prompt, prompt[len(shared) :])


def as_rows(turns: Sequence[Said]) -> list[Said]:
    """Return turns as rows to learn from, those that the later ones leave as they are in one row with them."""
    rows: list[Said] = []
    for turn in reversed(turns):
        prefix = turn.text[: turn.spans[-1][1]] if turn.spans else turn.text
        place = next((place for place, row in enumerate(rows) if row.text.startswith(prefix)), None)
        if place is None:
            rows.append(turn)
        else:
            rows[place] = Said(rows[place].text, turn.spans + rows[place].spans)
    return rows[::-1]


def _thought(render: Render, message: Message) -> str:
    """Return what a template writes before the reasoning of THINKING; nothing where it does not write it as it is."""
    with suppress(RefusedError):
        before, shown, after = render([QUESTION, message], False).partition(THINKING.reasoning)
        return before if shown and THINKING.answer in after else ""
    return ""


def _shared(one: str, other: str) -> str:
    """Return how two texts begin alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((at for at, (mine, its) in pairs if mine != its), min(len(one), len(other)))]


def _taken(message: Message, form: Form, calls: CallForm) -> Message:
    """Return a message less what is no template's business, such as its weight."""
    if message["role"] != "assistant":
        return {key: message[key] for key in TAKEN if message.get(key) is not None}
    parts = parts_of(message["content"])
    taken = (form if parts.reasoning else without)(parts)
    if not message.get("tool_calls"):
        return taken
    return taken | {"content": taken["content"] or calls.content, "tool_calls": message["tool_calls"]}


def _around(render: Render, history: list[Message], parts: Parts, form: Form) -> tuple[str, str, str]:
    """Return what a template writes before an answer, for it, and after it."""
    form = form if parts.reasoning else without
    before, found, after = render([*history, form(parts._replace(answer=ANSWER))], False).rpartition(ANSWER)
    whole = render([*history, form(parts)], False)
    answer = whole[len(before) : len(whole) - len(after)]
    if not found or whole != before + answer + after or answer.strip() != parts.answer.strip():
        raise RefusedError("it does not write an answer as it is")
    return before, answer, after


def _call_end(render: Render, calls: CallForm, ends: Sequence[str]) -> str:
    """Return the token that a template ends a turn with that calls; nothing where it writes none."""
    turn = render([*ASKED, probe(calls)], False)
    with suppress(RefusedError):
        return _end(turn[turn.rindex(VALUE) :], ends, "call")[1]
    return ""


def _end(after: str, ends: Sequence[str], what: str = "answer") -> tuple[int, str]:
    """Return where the first token that ends an answer, or a call, stops, and which it is."""
    found = [(after.index(end) + len(end), end) for end in ends if end in after]
    if not found:
        raise RefusedError(f"it ends no {what} with a token that ends one ({', '.join(ends)})")
    return min(found)

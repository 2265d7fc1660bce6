"""What a model reads: a conversation by its file's chat template and tokenizer."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import cast

import llama_cpp
from jinja2 import Environment, meta
from jinja2.ext import loopcontrols

from llama.call_format import CallFormat, find_format
from llama.call_prompt import Turn, with_tools
from llama.calls import TOOLS, form_of_calls
from llama.chat_template import ChatTemplate
from llama.control import disguised
from llama.errors import RequestError
from llama.found import Found
from llama.render import Generation
from llama.thought_format import TAGS, THOUGHT, ThoughtFormat, find_thoughts, thinking_turn
from llama.tokenizer import Tokenizer
from llama.types import BareText, Chat, Infill, Message, Prompt, TokenIds, Tools

# Marks where, in a conversation whose last message is not to end; the space shows whether the template strips texts.
GOES_ON = "[goes on here] "
CUT_OFF = "."  # stands for what is said after a thought that goes on
# What a template is given, and no switch of it.
GIVEN = {"messages", "bos_token", "eos_token", "add_generation_prompt", "raise_exception", "strftime_now", "documents"}
GIVEN |= {"tools", "tool_choice", "functions", "function_call"}
# Switches of templates for thinking, the first that there is counts: what they are where it is wanted, and where not.
THINKING_SWITCHES: dict[str, tuple[object, object]] = {
    "enable_thinking": (True, False),  # Qwen's and most others'
    "thinking": (True, False),  # DeepSeek's and Granite's
    "thinking_mode": ("enabled", "disabled"),  # MiniMax'
    "reasoning": (True, False),  # Command's
    "thinking_budget": (-1, 0),  # Seed's
}
ROOM_KEPT = 0.75  # share of the context that a shortened conversation takes at most


class Prompts:
    """Conversations as one model's token ids. Not for two threads at once; close it."""

    def __init__(
        self,
        model: "llama_cpp.llama_model_p",
        context: int,
        today: datetime | None = None,
        found: Found | None = None,
    ) -> None:
        """For a model that has `context` tokens for prompt and answer, and what is `found` of its file.

        Templates that write the date take `today` for it, or else the day that it is.
        """
        self._found = found or Found()
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._tokenizer = Tokenizer(model, self._found)
        self._context = context
        template = (llama_cpp.llama_model_chat_template(model, None) or b"").decode(errors="replace")
        self._switches = _variables(template) - GIVEN
        self._source = template
        self._template = self._renderer(template, today) if template else None

    def close(self) -> None:
        """End what renders the chat template; a second call does nothing."""
        if self._template:
            self._template.close()

    def read(self, messages: Prompt, drop_oldest: bool = False, bounded: bool = True) -> list[int]:
        """Return the conversation as token ids, ready for the assistant's answer.

        No BOS is added: the chat template writes the one that it wants, as it did in training. A text to go on with
        gets the one that the model wants.

        Args:
            messages: the conversation, or a text.
            drop_oldest: leave out its oldest turns where it is too long, though not the system prompt.
            bounded: it has to leave room for an answer.

        Raises RequestError for a conversation that the template refuses or that leaves no room for an answer, and for
        any where the model has no template; ModelError, which is one, where the template fails.
        """
        if isinstance(messages, str | BareText | TokenIds | Infill):
            tokens, field = self._text(messages), "prompt"
        else:
            chat, field = messages if isinstance(messages, Chat) else Chat(messages), "messages"
            tokens = self._render(chat)
            if drop_oldest and len(tokens) >= self._context * ROOM_KEPT:
                tokens = self._shortened(chat)
        return self._checked(tokens, field) if bounded else tokens

    def _text(self, text: str | BareText | TokenIds | Infill) -> list[int]:
        if isinstance(text, TokenIds):
            return self._known(text.ids)
        if isinstance(text, Infill):
            return self._gap(text)
        if isinstance(text, BareText):
            return self._tokenizer.read(text.text)
        return self._tokenizer.read(text, add_special=True)

    def _gap(self, text: Infill) -> list[int]:
        """Return the text around a gap, by marks of the model's own (Bavarian et al. 2022, in the order PSM)."""
        marks = [
            find(self._vocab)
            for find in (llama_cpp.llama_vocab_fim_pre, llama_cpp.llama_vocab_fim_suf, llama_cpp.llama_vocab_fim_mid)
        ]
        if min(marks) < 0:
            why = "suffix: the model has not learnt to fill a gap: leave it out, or ask another one."
            raise RequestError(why, "unsupported_parameter", "suffix")
        before, after, middle = marks
        begun = self._tokenizer.read("", add_special=True)
        parts = self._tokenizer.read(text.before), self._tokenizer.read(text.after)
        return [*begun, before, *parts[0], after, *parts[1], middle]

    def _shortened(self, chat: Chat) -> list[int]:
        """Return a conversation less as few of its oldest turns as make it fit; the last question stays."""
        questions = [i for i, message in enumerate(chat.messages) if message["role"] == "user"]

        def without(turns: int) -> list[int]:
            kept = [*chat.messages[: questions[0]], *chat.messages[questions[turns] :]]
            return self._render(replace(chat, messages=kept))

        fewest, most = min(1, len(questions) - 1), len(questions) - 1
        while fewest < most:  # halved each time: there may be thousands
            middle = (fewest + most) // 2
            fits = len(without(middle)) < self._context * ROOM_KEPT
            fewest, most = (fewest, middle) if fits else (middle + 1, most)
        return without(fewest) if questions else self._render(chat)

    def _known(self, ids: Sequence[int]) -> list[int]:
        tokens = llama_cpp.llama_vocab_n_tokens(self._vocab)
        if wrong := next((i for i in ids if not 0 <= i < tokens), None):
            raise RequestError(f"There is no token {wrong}: the model has {tokens}, from 0 on.", param="prompt")
        return list(ids)

    def _checked(self, tokens: list[int], param: str) -> list[int]:
        if not tokens:
            raise RequestError("The prompt is empty.", param=param)
        if len(tokens) >= self._context:
            raise RequestError(
                f"The conversation takes {len(tokens)} tokens, and this model's maximum context length is"
                f" {self._context} with the answer: shorten it or start anew.",
                "context_length_exceeded",
                param,
            )
        return tokens

    def _render(self, chat: Chat) -> list[int]:
        messages, tools, is_disguised = self._disguised(chat)
        listed: Sequence[Mapping[str, object]] | None = None
        if self._template and (tools or any(m["role"] == "tool" or m.get("tool_calls") for m in messages)):
            messages = cast(list[Message], with_tools(messages, tools, self.call_format))
            listed = tools.schemas if tools and self.call_format.listed else None
        text = self.text(messages, not chat.goes_on, self._set(chat), listed)
        return self._tokenizer.read(text, is_disguised=is_disguised)

    def _disguised(self, chat: Chat) -> tuple[Sequence[Message], Tools | None, bool]:
        """Return messages and tools in whose words no control token is found, and whether there was one."""
        schemas = json.dumps(chat.tools.schemas if chat.tools else [], ensure_ascii=False)  # names of fields, too
        try:
            hidden = disguised([*chat.messages, {"role": TOOLS, "content": schemas}], self._tokenizer.control)
        except ValueError as error:
            raise RequestError(f"The messages cannot be read: {error}.", param="messages") from None
        if hidden is None:
            return chat.messages, chat.tools, False
        *messages, listed = cast(list[Message], hidden)
        tools = chat.tools and replace(chat.tools, schemas=json.loads(listed["content"]))
        return messages, tools, True

    @cached_property
    def call_format(self) -> CallFormat:
        """How the model writes calls of tools; found when the first conversation has some."""

        def is_token(text: str) -> bool:
            return len(self._tokenizer.read(text)) == 1

        return find_format(self._tried, RequestError, [self._special(token) for token in self.ends], is_token)

    def _tried(self, turns: list[Turn], asks: bool) -> str:
        """Return turns as the template writes them, the first of them perhaps the tools."""
        tools = json.loads(cast(str, turns[0]["content"])) if turns[0]["role"] == TOOLS else None
        return self._written(turns[1:] if tools else turns, asks, tools, {})

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens by which the model ends its turn."""
        tokens, is_end = range(llama_cpp.llama_vocab_n_tokens(self._vocab)), llama_cpp.llama_vocab_is_eog
        return self._found.once("ends", lambda: tuple(token for token in tokens if is_end(self._vocab, token)))

    @property
    def thoughts(self) -> ThoughtFormat:
        """How the model writes what it thinks, by its template."""
        return self._thoughts or TAGS

    @property
    def thinks(self) -> bool:
        """Whether the template knows of thoughts."""
        return self._thoughts is not None

    @cached_property
    def _thoughts(self) -> ThoughtFormat | None:
        if self._template is None:
            return None
        return find_thoughts(self._tried, RequestError, self._source, lambda: form_of_calls(self._tried, RequestError))

    def control_tokens(self, marks: Iterable[str]) -> frozenset[int]:
        """Return the tokens that are in marks of calls or thoughts, and no text; none of them ends a turn."""
        tokens = {token for mark in marks for token in self._tokenizer.read(mark)}
        control = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
        return frozenset(
            token
            for token in tokens
            if llama_cpp.llama_vocab_get_attr(self._vocab, token) & control
            and not llama_cpp.llama_vocab_is_eog(self._vocab, token)
        )

    def _set(self, chat: Chat) -> dict[str, object]:
        """Return the template's variables as they are asked for. Raises RequestError for one that it does not know."""
        wanted = dict(chat.switches)
        thinking = next((name for name in THINKING_SWITCHES if name in self._switches), None)
        if chat.thinks is not None:
            if thinking:
                wanted[thinking] = THINKING_SWITCHES[thinking][not chat.thinks]
            elif chat.thinks != self.thinks:
                text = "enable_thinking: the model's chat template has no switch for it."
                raise RequestError(text, "unsupported_parameter", "enable_thinking")
        if chat.effort is not None:
            if chat.effort == "none" and thinking:
                wanted[thinking] = THINKING_SWITCHES[thinking][1]
            elif "reasoning_effort" in self._switches:
                wanted["reasoning_effort"] = chat.effort
            else:
                text = f"reasoning_effort: the model's chat template knows no {chat.effort[:20]!r}."
                raise RequestError(text, "unsupported_value", "reasoning_effort")
        for name in wanted.keys() - self._switches:
            param = f"chat_template_kwargs.{name[:100].encode(errors='replace').decode()}"
            text = f"{param}: the model's chat template has no such switch."
            raise RequestError(text, "unsupported_parameter", param)
        return wanted

    def text(
        self,
        messages: Sequence[Message],
        asks: bool = True,
        switches: Mapping[str, object] | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> str:
        """Return the conversation as the template writes it.

        Args:
            messages: the conversation.
            asks: end where the assistant's answer begins; else within the last message, which the model goes on with.
            switches: variables of the template.
            tools: that it lists.

        Raises RequestError as `read` does.
        """
        if self._template is None:
            raise RequestError(
                "This model has no chat template, so it cannot chat: ask another one, or let this one go on with a text"
                " (/v1/completions)."
            )
        turns = [self._thinking_turn(cast(Turn, message)) for message in messages]
        if not asks:
            turns[-1] = self._open_turn(cast(Turn, messages[-1]))
        text = self._written(turns, asks, tools, switches or {})
        return text if asks else _cut(text)

    def _thinking_turn(self, turn: Turn) -> Turn:
        """Return a turn with what was thought as the template takes it."""
        thought = turn.get(THOUGHT)
        is_answer = thought and turn["role"] == "assistant"
        return thinking_turn(self.thoughts.field, turn, str(thought)) if is_answer else turn

    def _open_turn(self, turn: Turn) -> Turn:
        """Return a turn that is to be gone on with, marked where: within its thought, where nothing is said yet."""
        thought, said = str(turn.get(THOUGHT) or ""), str(turn["content"])
        if not thought:
            return turn | {"content": said + GOES_ON}
        if self.thoughts.field is None:
            return turn | {"content": self.thoughts.begun(turn) + GOES_ON}
        if said:
            return self._thinking_turn(turn | {"content": said + GOES_ON})
        return self._thinking_turn(turn | {"content": CUT_OFF, THOUGHT: thought + GOES_ON})

    def _written(
        self,
        messages: Sequence[Mapping[str, object]],
        asks: bool,
        tools: Sequence[Mapping[str, object]] | None,
        switches: Mapping[str, object],
    ) -> str:
        # As Transformers has it, templates may ask whether there are tools and documents.
        given = {"messages": list(messages), "add_generation_prompt": asks, "tools": tools, "documents": None}
        return cast(ChatTemplate, self._template).render(given | dict(switches))

    def _renderer(self, template: str, today: datetime | None) -> ChatTemplate:
        return ChatTemplate(
            {
                "template": template,
                "bos_token": self._special(llama_cpp.llama_vocab_bos(self._vocab)),
                "eos_token": self._special(llama_cpp.llama_vocab_eos(self._vocab)),
                "today": today.isoformat() if today else None,
            }
        )

    def _special(self, token: int) -> str:
        return llama_cpp.llama_vocab_get_text(self._vocab, token).decode() if token >= 0 else ""


def _cut(text: str) -> str:
    """Return a conversation up to where its last message goes on. Raises RequestError where the template has lost it.

    A template that strips a message's end has stripped the mark's space: what goes on is then stripped as well, as
    Transformers does.
    """
    before, mark, after = text.rpartition(GOES_ON.rstrip())
    if not mark:
        raise RequestError(
            "The model's chat template cannot leave a message open to be gone on with.", param="messages"
        )
    return before if after.startswith(GOES_ON[-1]) else before.rstrip()


def _variables(template: str) -> set[str]:
    """Return the names that a template looks up; none of one that cannot be read."""
    # Not optimized: that would compute what stands in it, of any size.
    environment = Environment(extensions=[Generation, loopcontrols], optimized=False)  # noqa: S701, it writes nothing
    try:
        return meta.find_undeclared_variables(environment.parse(template)) - set(environment.globals)
    except Exception:  # the first conversation says what
        return set()

"""What a model reads: a conversation by its file's chat template and tokenizer."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import jinja2
import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from common.errors import UserError
from llama.errors import RequestError
from llama.tokenizer import Tokenizer
from llama.types import Message, Prompt

GOES_ON = "[goes on here]"  # marks where, in a conversation whose last message is not to end
ROOM_KEPT = 0.75  # share of the context that a shortened conversation takes at most


class Prompts:
    """Conversations as one model's token ids."""

    def __init__(
        self, model: "llama_cpp.llama_model_p", path: Path, context: int, today: datetime | None = None
    ) -> None:
        """For a model that was loaded from `path` and has `context` tokens for prompt and answer.

        Templates that write the date take `today` for it, or else the day that it is.

        Raises UserError for a file without a chat template, or with a broken one.
        """
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._tokenizer = Tokenizer(model)
        self._context = context
        self._formatter = self._chat_template(model, path)
        if today:
            self._formatter.strftime_now = today.strftime  # type: ignore[assignment, method-assign]

    def read(self, messages: Prompt, drop_oldest: bool = False) -> list[int]:
        """Return the conversation as token ids, ready for the assistant's answer.

        No BOS is added: the chat template writes the one that it wants, as it did in training. A text to go on with
        gets the one that the model wants.

        Args:
            messages: the conversation, or a text.
            drop_oldest: leave out its oldest turns where it is too long, though not the system prompt.

        Raises RequestError for a conversation that the template refuses or that leaves no room for an answer.
        """
        if isinstance(messages, str):
            return self._checked(self._tokenizer.read(messages, add_special=True))
        tokens = self._render(messages)
        while drop_oldest and len(tokens) >= self._context * ROOM_KEPT and len(shorter := without_oldest(messages)):
            messages = shorter
            tokens = self._render(messages)
        return self._checked(tokens)

    def _checked(self, tokens: list[int]) -> list[int]:
        if len(tokens) >= self._context:
            raise RequestError(
                f"The conversation takes {len(tokens)} tokens, and the model's context holds {self._context} with the"
                " answer: shorten it or start anew."
            )
        return tokens

    def _render(self, messages: Sequence[Message]) -> list[int]:
        return self._tokenizer.read(self.text(messages))

    def text(self, messages: Sequence[Message], asks: bool = True) -> str:
        """Return the conversation as the template writes it.

        Args:
            messages: the conversation.
            asks: end where the assistant's answer begins; else within the last message, which the model goes on with.

        Raises RequestError for a conversation that the template refuses.
        """
        if not asks:
            messages = [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + GOES_ON}]
        self._formatter.add_generation_prompt = asks
        try:
            text = self._formatter(messages=list(messages)).prompt  # type: ignore[arg-type]
        except (ValueError, jinja2.TemplateError) as error:
            raise RequestError(f"The model's chat template refuses this conversation: {error}") from None
        return text if asks else text.rpartition(GOES_ON)[0]

    def _chat_template(self, model: "llama_cpp.llama_model_p", path: Path) -> Jinja2ChatFormatter:
        """Return the GGUF's chat template.

        The formatter passes over the `{% generation %}` marks that training needs.
        """
        template = llama_cpp.llama_model_chat_template(model, None)
        if template is None:
            raise UserError(f"{path} has no chat template, so it cannot chat: export it with one or remove it")
        try:
            return Jinja2ChatFormatter(
                template.decode(),
                eos_token=self._special(llama_cpp.llama_vocab_eos(self._vocab)),
                bos_token=self._special(llama_cpp.llama_vocab_bos(self._vocab)),
            )
        except jinja2.TemplateSyntaxError as error:
            raise UserError(f"{path} has a broken chat template: {error}") from None

    def _special(self, token: int) -> str:
        return llama_cpp.llama_vocab_get_text(self._vocab, token).decode() if token >= 0 else ""


def without_oldest(messages: Sequence[Message]) -> list[Message]:
    """Return a conversation less the oldest question and its answer; empty where the last question stands alone."""
    questions = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if len(questions) < 2:
        return []
    return [*messages[: questions[0]], *messages[questions[1] :]]

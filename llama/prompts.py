"""What a model reads: a conversation by its file's chat template and tokenizer."""

from collections.abc import Sequence
from datetime import datetime

import llama_cpp

from llama.chat_template import ChatTemplate
from llama.errors import RequestError
from llama.tokenizer import Tokenizer
from llama.types import Message, Prompt

GOES_ON = "[goes on here]"  # marks where, in a conversation whose last message is not to end
ROOM_KEPT = 0.75  # share of the context that a shortened conversation takes at most


class Prompts:
    """Conversations as one model's token ids. Not for two threads at once; close it."""

    def __init__(self, model: "llama_cpp.llama_model_p", context: int, today: datetime | None = None) -> None:
        """For a model that has `context` tokens for prompt and answer.

        Templates that write the date take `today` for it, or else the day that it is.
        """
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._tokenizer = Tokenizer(model)
        self._context = context
        self._template = self._chat_template(model, today)

    def close(self) -> None:
        """End what renders the chat template; a second call does nothing."""
        if self._template:
            self._template.close()

    def read(self, messages: Prompt, drop_oldest: bool = False) -> list[int]:
        """Return the conversation as token ids, ready for the assistant's answer.

        No BOS is added: the chat template writes the one that it wants, as it did in training. A text to go on with
        gets the one that the model wants.

        Args:
            messages: the conversation, or a text.
            drop_oldest: leave out its oldest turns where it is too long, though not the system prompt.

        Raises RequestError for a conversation that the template refuses or that leaves no room for an answer, and for
        any where the model has no template; ModelError, which is one, where the template fails.
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

        Raises RequestError as `read` does.
        """
        if self._template is None:
            raise RequestError(
                "This model has no chat template, so it cannot chat: ask another one, or let this one go on with a text"
                " (/v1/completions)."
            )
        if not asks:
            messages = [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + GOES_ON}]
        # As Transformers has it, templates may ask whether there are tools and documents.
        text = self._template.render(
            {"messages": list(messages), "add_generation_prompt": asks, "tools": None, "documents": None}
        )
        return text if asks else text.rpartition(GOES_ON)[0]

    def _chat_template(self, model: "llama_cpp.llama_model_p", today: datetime | None) -> ChatTemplate | None:
        """Return the GGUF's chat template; None where it has none."""
        template = llama_cpp.llama_model_chat_template(model, None)
        if not template:
            return None
        return ChatTemplate(
            {
                "template": template.decode(errors="replace"),
                "bos_token": self._special(llama_cpp.llama_vocab_bos(self._vocab)),
                "eos_token": self._special(llama_cpp.llama_vocab_eos(self._vocab)),
                "today": today.isoformat() if today else None,
            }
        )

    def _special(self, token: int) -> str:
        return llama_cpp.llama_vocab_get_text(self._vocab, token).decode() if token >= 0 else ""


def without_oldest(messages: Sequence[Message]) -> list[Message]:
    """Return a conversation less the oldest question and its answer; empty where the last question stands alone."""
    questions = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if len(questions) < 2:
        return []
    return [*messages[: questions[0]], *messages[questions[1] :]]

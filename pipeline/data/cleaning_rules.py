"""What a conversation may be left out for: RULES has a row for each reason, with its setting of `data.clean`.

Rules look at what is learnt, the assistant's turns, unless they say otherwise.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.core.data_settings import CleanSettings
from pipeline.core.formats import Messages
from pipeline.data.languages import UNKNOWN, language_of
from pipeline.data.quality import quality
from pipeline.data.token_bounds import tokens_of
from pipeline.data.word_runs import REPEATED, distinct, runs

LONG_ENOUGH = 50  # words of an answer; the runs of a shorter one say little
UNFINISHED = 25  # words; shorter answers may be names, numbers or titles
EXCERPT = 200  # characters of an example
BEFORE = 40  # of them, before what was found

CANNOT = r"(can ?not|can[\u2019']t|won[\u2019']t|(am|are) (unable|not able) to|must decline to)"
WHAT = "(answer|assist|comply|create|discuss|do|engage|fulfil|generate|help|offer|produce|provide|share|write)"
REFUSAL = re.compile(
    r"\s*("
    r"as an? (ai|artificial intelligence|language model)\b"
    rf"|((i[\u2019']?m|i am|we are|we[\u2019']re) )?(very |so |really )?(sorry|afraid)\b[^.!?]{{0,60}}\b(i|we) {CANNOT}"
    rf"|(unfortunately,? )?(i|we) {CANNOT} {WHAT}\b)",
    re.IGNORECASE,
)
LEFTOVER = re.compile(
    r"<\|[a-z][a-z0-9_ -]*\|>|</?s>|\[/?INST\]|<</?SYS>>|<(start|end)_of_turn>|<\uff5c[^\uff5c]{1,40}\uff5c>"
    r"|^### ?(Instruction|Response|Human|Assistant|Input):|^(Human|Assistant|USER|ASSISTANT): ",
    re.MULTILINE,
)
HINTS = ("<", "INST]", "###", "Human: ", "Assistant: ", "USER: ", "ASSISTANT: ")  # found faster, and in each of these
# What no answer ends with: a letter, a comma, a dash, an opening bracket. Not so in a list or a table.
UNENDED = re.compile(r"[^\W\d_]|[,\-\u2013\u2014(\[{<=+&@#\\]")
ITEM = re.compile(r"\s*([-*+\u2022|]|\d+[.)])\s")


class Hit(NamedTuple):
    """A message, and from where up to where it has what was found; the whole message where both are 0."""

    text: str
    start: int = 0
    end: int = 0
    said: str = ""  # a few words on what was found, where the text does not show it

    @property
    def excerpt(self) -> "Hit":
        """The same with no more of the message than is to be shown."""
        begin = max(0, min(self.start - BEFORE, len(self.text) - EXCERPT))
        return Hit(self.text[begin : begin + EXCERPT], self.start - begin, min(self.end - begin, EXCERPT), self.said)


@dataclass(frozen=True)
class Rule:
    """A reason to leave a conversation out."""

    name: str  # in the report
    reason: str  # in data/rejected.jsonl
    setting: str  # of `data.clean`: off, count or drop; or a bound or a list, which drops where it says anything
    finds: Callable[[Messages, CleanSettings], Hit | None]  # what is the reason; None where there is none


def answers(messages: Messages) -> Iterator[str]:
    """Yield what is learnt of a conversation, but for calls of tools; a plain text is learnt whole."""
    for message in messages:
        if message["role"] in ("assistant", "text") and message.get("weight", 1) and message["content"]:
            yield message["content"]


def short_answer(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find an answer of fewer than `min_answer_words`."""
    least = settings.min_answer_words or 0
    return next((Hit(text) for text in answers(messages) if len(text.split(maxsplit=least)) < least), None)


def long_conversation(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find more than `max_words` in a conversation."""
    words = sum(len(message["content"].split()) for message in messages)
    return Hit(messages[0]["content"], said=f"{words:,} words") if words > (settings.max_words or words) else None


def few_tokens(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find fewer than `min_tokens` in a conversation as the tokenizer's template writes it."""
    tokens = tokens_of(messages, settings.tokenizer)
    if tokens is None or tokens >= (settings.min_tokens or 0):
        return None
    return Hit(messages[0]["content"], said=f"{tokens:,} tokens")


def many_tokens(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find more than `max_tokens` in a conversation as the tokenizer's template writes it."""
    tokens = tokens_of(messages, settings.tokenizer)
    if tokens is None or tokens <= (settings.max_tokens or tokens):
        return None
    return Hit(messages[0]["content"], said=f"{tokens:,} tokens")


def other_language(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find a language that is not among `languages`; where none can be told the conversation stays."""
    language = language_of(messages)
    if language in (UNKNOWN, *settings.languages):
        return None
    return Hit(next(answers(messages), ""), said=language)


def poor_answer(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find an answer whose quality is below `min_quality`."""
    for text in answers(messages):
        if (score := quality(text)) < (settings.min_quality or 0):
            return Hit(text, said=f"{score:.2f}")
    return None


def circling_answer(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find an answer of which more than `max_repetition` of the runs of four words stand in it before."""
    most = settings.max_repetition
    return next(
        (_second_time(text) for text in answers(messages) if _may_circle(text, most) and repetition(text) > most), None
    )


def _may_circle(text: str, most: float) -> bool:
    """Return whether so many runs can have come before: each of a new word has not."""
    words = text.split()
    return len(set(words)) < (1 - most) * (len(words) - REPEATED + 1) + REPEATED


def repetition(text: str) -> float:
    """Return the share of a text's runs of four words that it has had before; 0 for a short one."""
    words = text.split()
    if len(words) < LONG_ENOUGH:
        return 0.0
    return 1 - distinct(runs(words, REPEATED))


def _second_time(text: str) -> Hit:
    """Return where a text first says four words again."""
    words = list(re.finditer(r"\S+", text))
    seen: set[tuple[str, ...]] = set()
    for at, run in enumerate(runs([word[0] for word in words], REPEATED)):
        if run in seen:
            return Hit(text, words[at].start(), words[at + REPEATED - 1].end())
        seen.add(run)
    return Hit(text)


def refusal(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find an answer that begins as a refusal does, in English."""
    found = ((text, REFUSAL.match(text)) for text in answers(messages))
    return next((Hit(text, *match.span(1)) for text, match in found if match), None)


def unfinished_answer(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find a last answer that stops within a sentence."""
    last = next((message["content"].rstrip() for message in reversed(messages) if message["role"] == "assistant"), "")
    in_a_list = ITEM.match(last.rpartition("\n")[2])
    if in_a_list or not UNENDED.match(last[-1:]) or len(last.split(maxsplit=UNFINISHED)) < UNFINISHED:
        return None
    return Hit(last, len(last) - len(last.split()[-1]), len(last))


def leftover(messages: Messages, settings: CleanSettings) -> Hit | None:
    """Find a control token or a template's mark, in anybody's turn."""
    for message in messages:
        text = message["content"]
        if any(hint in text for hint in HINTS) and (match := LEFTOVER.search(text)):
            return Hit(text, *match.span())
    return None


RULES = (
    Rule("short", "answer too short", "min_answer_words", short_answer),
    Rule("long", "conversation too long", "max_words", long_conversation),
    Rule("few_tokens", "too few tokens", "min_tokens", few_tokens),
    Rule("many_tokens", "too many tokens", "max_tokens", many_tokens),
    Rule("language", "another language", "languages", other_language),
    Rule("repetition", "answer goes round in circles", "repetition", circling_answer),
    Rule("refusal", "answer is a refusal", "refusals", refusal),
    Rule("cut_off", "answer stops within a sentence", "cut_off", unfinished_answer),
    Rule("leftovers", "marks of a chat template", "leftovers", leftover),
    Rule("quality", "answer of poor quality", "min_quality", poor_answer),
)
REASONS = frozenset(rule.reason for rule in RULES)

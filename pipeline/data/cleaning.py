"""Conversations that are left out for what they are like, and personal data that is masked.

RULES has a row for each reason: the setting of `data.clean` that it goes by, and what it finds. A rule that only counts
drops nothing. Rules look at what is learnt, the assistant's turns, unless they say otherwise.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.core.data_settings import CleanSettings
from pipeline.core.formats import Messages
from pipeline.core.tool_calls import mapped
from pipeline.data.word_runs import REPEATED, distinct, runs

LONG_ENOUGH = 50  # words of an answer; the runs of a shorter one say little
UNFINISHED = 25  # words; shorter answers may be names, numbers or titles
EXAMPLES = 3  # a rule, in the report
EXCERPT = 200  # characters of an example

CANNOT = r"(can ?not|can[\u2019']t|won[\u2019']t|(am|are) (unable|not able) to|must decline to)"
WHAT = "(answer|assist|comply|create|discuss|do|engage|fulfil|generate|help|offer|produce|provide|share|write)"
REFUSAL = re.compile(
    r"as an? (ai|artificial intelligence|language model)\b"
    rf"|((i[\u2019']?m|i am|we are|we[\u2019']re) )?(very |so |really )?(sorry|afraid)\b[^.!?]{{0,60}}\b(i|we) {CANNOT}"
    rf"|(unfortunately,? )?(i|we) {CANNOT} {WHAT}\b",
    re.IGNORECASE,
)
LEFTOVER = re.compile(
    r"<\|[a-z][a-z0-9_ -]*\|>|</?s>|\[/?INST\]|<</?SYS>>|<(start|end)_of_turn>|<\uff5c[^\uff5c]{1,40}\uff5c>"
    r"|^### ?(Instruction|Response|Human|Assistant|Input):|^(Human|Assistant|USER|ASSISTANT): ",
    re.MULTILINE,
)
# What no answer ends with: a letter, a comma, a dash, an opening bracket. Not so in a list or a table.
UNENDED = re.compile(r"[^\W\d_]|[,\-\u2013\u2014(\[{<=+&@#\\]")
ITEM = re.compile(r"\s*([-*+\u2022|]|\d+[.)])\s")

# What is masked, by name. Digits of cards and accounts are checked by their checksums, so that other numbers stay.
EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(\.[\w-]+)*\.[a-z]{2,}\b", re.IGNORECASE)
PHONE = re.compile(
    r"(?<![\w.])\+\d{1,3}[ .-]?(\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4}(?!\w)"  # with a country's code
    r"|(?<![\w.-])(\(\d{3}\) ?|\d{3}-)\d{3}-\d{4}(?![\w-])"  # North American
)
OCTET = r"(25[0-5]|2[0-4]\d|1?\d?\d)"
IP = re.compile(rf"(?<![\w.])({OCTET}\.){{3}}{OCTET}(?!\w|\.\d)")
CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


def is_card(text: str) -> bool:
    """Return whether digits have the check digit of a payment card (Luhn, ISO/IEC 7812-1)."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Return whether an account number has its check digits (ISO 13616, modulo 97)."""
    compact = text.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


MASKS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (EMAIL, lambda _: True),
    "iban": (IBAN, is_iban),
    "card": (CARD, is_card),
    "phone": (PHONE, lambda _: True),
    "ip": (IP, lambda _: True),
}


@dataclass(frozen=True)
class Rule:
    """A reason to leave a conversation out."""

    name: str  # in the report
    reason: str  # in data/rejected.jsonl
    setting: str  # of `data.clean`: off, count or drop; or a bound, which is off as null and else drops
    finds: Callable[[Messages, CleanSettings], str | None]  # the text that is the reason; None where there is none


@dataclass
class Found:
    """What a rule has found."""

    mode: str
    rows: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Count a conversation, whose `text` is the reason."""
        self.rows += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(text[:EXCERPT])


class Cleaning:
    """The rules of one run, and what they have found and masked."""

    def __init__(self, settings: CleanSettings) -> None:
        """Go by these settings."""
        self._settings = settings
        self._rules = [(rule, Found(mode)) for rule in RULES if (mode := mode_of(rule, settings)) != "off"]
        self.masked: Counter[str] = Counter()

    def reason(self, messages: Messages) -> str | None:
        """Return why a conversation is left out, by the first rule that does so; None where it stays."""
        reason = None
        for rule, found in self._rules:
            if (text := rule.finds(messages, self._settings)) is None:
                continue
            found.add(text)
            if found.mode == "drop" and reason is None:
                reason = rule.reason
        return reason

    def mask(self, messages: Messages) -> Messages:
        """Return a conversation with the personal data that `data.clean.mask` names masked, as `<EMAIL>`."""
        if not self._settings.mask:
            return messages
        return [mapped(message, self._masked) for message in messages]

    def report(self) -> dict[str, object]:
        """Return what was found and masked, as reports/prepare.json has it."""
        return {"cleaning": self.found(), "masked": dict(self.masked)}

    def found(self) -> dict[str, dict[str, object]]:
        """Return for each rule how many conversations it has found, some of them, and whether they were dropped."""
        return {
            rule.name: {"mode": found.mode, "rows": found.rows, "examples": found.examples}
            for rule, found in self._rules
        }

    def _masked(self, text: str) -> str:
        for name in self._settings.mask:
            pattern, is_one = MASKS[name]

            def replaced(match: re.Match[str], name: str = name, is_one: Callable[[str], bool] = is_one) -> str:
                if not is_one(match[0]):
                    return match[0]
                self.masked[name] += 1
                return f"<{name.upper()}>"

            text = pattern.sub(replaced, text)
        return text


def answers(messages: Messages) -> Iterator[str]:
    """Yield what is learnt of a conversation, but for calls of tools; a plain text is learnt whole."""
    for message in messages:
        if message["role"] in ("assistant", "text") and message.get("weight", 1) and message["content"]:
            yield message["content"]


def short_answer(messages: Messages, settings: CleanSettings) -> str | None:
    """Return an answer of fewer than `min_answer_words`."""
    least = settings.min_answer_words or 0
    return next((text for text in answers(messages) if len(text.split(maxsplit=least)) < least), None)


def long_conversation(messages: Messages, settings: CleanSettings) -> str | None:
    """Return the beginning of a conversation of more than `max_words`."""
    words = sum(len(message["content"].split()) for message in messages)
    return messages[0]["content"] if words > (settings.max_words or words) else None


def circling_answer(messages: Messages, settings: CleanSettings) -> str | None:
    """Return an answer of which more than `max_repetition` of the runs of four words stand in it before."""
    return next((text for text in answers(messages) if repetition(text) > settings.max_repetition), None)


def repetition(text: str) -> float:
    """Return the share of a text's runs of four words that it has had before; 0 for a short one."""
    words = text.split()
    if len(words) < LONG_ENOUGH:
        return 0.0
    return 1 - distinct(runs(words, REPEATED))


def refusal(messages: Messages, settings: CleanSettings) -> str | None:
    """Return an answer that begins as a refusal does, in English."""
    return next((text for text in answers(messages) if REFUSAL.match(text.lstrip())), None)


def unfinished_answer(messages: Messages, settings: CleanSettings) -> str | None:
    """Return the end of a last answer that stops within a sentence."""
    last = next((message["content"].rstrip() for message in reversed(messages) if message["role"] == "assistant"), "")
    in_a_list = ITEM.match(last.rpartition("\n")[2])
    if in_a_list or not UNENDED.match(last[-1:]) or len(last.split(maxsplit=UNFINISHED)) < UNFINISHED:
        return None
    return last[-EXCERPT:]


def leftover(messages: Messages, settings: CleanSettings) -> str | None:
    """Return the text around a control token or a template's mark, in anybody's turn."""
    for message in messages:
        if match := LEFTOVER.search(message["content"]):
            return message["content"][max(0, match.start() - 40) :]
    return None


def mode_of(rule: Rule, settings: CleanSettings) -> str:
    """Return whether a rule is off, counts or drops."""
    value = getattr(settings, rule.setting)
    if value is None:
        return "off"
    return value if isinstance(value, str) else "drop"


RULES = (
    Rule("short", "answer too short", "min_answer_words", short_answer),
    Rule("long", "conversation too long", "max_words", long_conversation),
    Rule("repetition", "answer goes round in circles", "repetition", circling_answer),
    Rule("refusal", "answer is a refusal", "refusals", refusal),
    Rule("cut_off", "answer stops within a sentence", "cut_off", unfinished_answer),
    Rule("leftovers", "marks of a chat template", "leftovers", leftover),
)
REASONS = frozenset(rule.reason for rule in RULES)

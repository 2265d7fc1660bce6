"""Personal data in texts, masked by name: `<EMAIL>`, `<PHONE>`, `<IBAN>`, `<CARD>`, `<IP>`."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

from pipeline.core.messages import Message, Messages
from pipeline.core.tool_calls import mapped

# Digits of cards and accounts are checked by their checksums, so that other numbers stay.
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


class Mask(NamedTuple):
    """What is masked, and what a text must have for it, which is found much faster."""

    pattern: re.Pattern[str]
    hint: re.Pattern[str]
    is_one: Callable[[str], bool] = lambda _: True


MASKS = {
    "email": Mask(EMAIL, re.compile("@")),
    "iban": Mask(IBAN, re.compile(r"[A-Z]{2}\d\d"), is_iban),
    "card": Mask(CARD, re.compile(r"\d(?:[ -]?\d){12}"), is_card),
    "phone": Mask(PHONE, re.compile(r"[+-]\(?\d")),
    "ip": Mask(IP, re.compile(r"\.\d")),
}


class Masking:
    """What is to be masked, and how often it was."""

    def __init__(self, names: Sequence[str]) -> None:
        """Mask what MASKS has under these names."""
        self._names = names
        self.places: Counter[str] = Counter()

    def messages(self, messages: Messages) -> Messages:
        """Return messages with what is to be masked masked; the very same where nothing is to be."""
        return [mapped(message, self.text) for message in messages] if self._names else messages

    def line(self, line: str) -> str:
        """Return a line of JSON whose texts are masked."""
        return json.dumps(self._value(json.loads(line)), ensure_ascii=False) if self._names else line

    def text(self, text: str) -> str:
        """Return a text with what is to be masked masked."""
        for name in self._names:
            mask = MASKS[name]
            if mask.hint.search(text):
                text = mask.pattern.sub(partial(self._masked, name, mask.is_one), text)
        return text

    def _masked(self, name: str, is_one: Callable[[str], bool], match: re.Match[str]) -> str:
        if not is_one(match[0]):
            return match[0]
        self.places[name] += 1
        return f"<{name.upper()}>"

    def _value(self, value: object) -> object:
        if isinstance(value, dict) and "role" in value:
            return mapped(cast(Message, value), self.text)
        if isinstance(value, dict):
            return {key: self._value(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self._value(entry) for entry in value]
        return self.text(value) if isinstance(value, str) else value

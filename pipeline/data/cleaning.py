"""Conversations that are left out for what they are like, and personal data that is masked.

What a rule finds it drops, or it only counts, as its setting of `data.clean` says.
"""

from collections import Counter
from dataclasses import dataclass, field

from common.errors import UserError
from pipeline.core.data_settings import CleanSettings
from pipeline.core.formats import Messages
from pipeline.data.cleaning_rules import LEFTOVER, RULES, Hit, Rule
from pipeline.data.draw import place
from pipeline.data.languages import known
from pipeline.data.masking import Masking

EXAMPLES = 3  # a rule, in reports/prepare.json
SHOWN = 5  # on the page
COMPARED = 1000  # characters, by which an example is drawn


@dataclass
class Found:
    """What a rule has found; a draw of it stands in `drawn`."""

    mode: str
    seed: int
    rows: int = 0
    drawn: list[tuple[bytes, Hit]] = field(default_factory=list)

    def add(self, hit: Hit) -> None:
        """Count a conversation, for what stands in it."""
        self.rows += 1
        text = hit.text[:COMPARED].encode(errors="replace")
        here = place(text, self.seed)
        is_drawn = len(self.drawn) < SHOWN or here < self.drawn[-1][0]
        if is_drawn and here not in dict(self.drawn):  # the same words are shown once
            self.drawn = sorted([*self.drawn, (here, hit.excerpt)])[:SHOWN]

    @property
    def examples(self) -> list[Hit]:
        """Some of it, whatever order it came in."""
        return [hit for _, hit in self.drawn]


class Cleaning:
    """The rules of one run, and what they have found and masked."""

    def __init__(self, settings: CleanSettings, seed: int = 0) -> None:
        """Go by these settings; draw examples by `seed`.

        Raises:
            UserError: a language is asked for that cannot be told.
        """
        if settings.languages and (unknown := sorted(set(settings.languages) - set(known()))):
            raise UserError(f"data.clean.languages has {unknown[0]!r}; those that can be told: {', '.join(known())}")
        self._settings = settings
        self.rules = [(rule, Found(mode, seed)) for rule in RULES if (mode := mode_of(rule, settings)) != "off"]
        self._masking = Masking(settings.mask)
        self.masked = self._masking.places
        self.marks: Counter[str] = Counter()  # rows by the mark of a template that they have

    def reason(self, messages: Messages) -> str | None:
        """Return why a conversation is left out, by the first rule that does so; None where it stays."""
        reason = None
        for rule, found in self.rules:
            if (hit := rule.finds(messages, self._settings)) is None:
                continue
            found.add(hit)
            if rule.name == "leftovers":
                self.marks.update({mark[0] for message in messages for mark in LEFTOVER.finditer(message["content"])})
            if found.mode == "drop" and reason is None:
                reason = rule.reason
        return reason

    def mask(self, messages: Messages) -> Messages:
        """Return a conversation with the personal data that `data.clean.mask` names masked, as `<EMAIL>`."""
        return self._masking.messages(messages)

    def mask_line(self, line: str) -> str:
        """Return a line of JSON, such as a preference that stands apart, with its texts masked."""
        return self._masking.line(line)

    def report(self) -> dict[str, object]:
        """Return what was found and masked, as reports/prepare.json has it."""
        return {"cleaning": self.found(), "masked": dict(self.masked)}

    def found(self) -> dict[str, dict[str, object]]:
        """Return for each rule how many conversations it has found, some of them, and whether they were dropped."""
        return {
            rule.name: {
                "mode": found.mode,
                "rows": found.rows,
                "examples": [hit.text for hit in found.examples[:EXAMPLES]],
            }
            for rule, found in self.rules
        }


def mode_of(rule: Rule, settings: CleanSettings) -> str:
    """Return whether a rule is off, counts or drops."""
    value = getattr(settings, rule.setting)
    if isinstance(value, str):
        return value
    return "drop" if value else "off"

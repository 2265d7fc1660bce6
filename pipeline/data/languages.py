"""The language of a conversation, by its first words: py3langid, which needs no network and has its model with it."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SEEN = 300  # characters
LETTERS = 12  # with fewer, a text is in no language that could be told
SURE = 0.5  # probability from which a language is told,
SHORT, SURE_OF_SHORT = 80, 0.9  # and of fewer letters: a sentence on Ljubljana is not in Slovene
UNKNOWN = "unknown"
CODE = re.compile(r"```.*?(```|\Z)|<[^>]{1,80}>", re.DOTALL)  # and tags, which are in no language


def language_of(messages: Iterable[Mapping[str, object]]) -> str:
    """Return the ISO 639-1 code of what the assistant says first, of its question where that is too short.

    UNKNOWN where neither says enough to tell.
    """
    answers: list[str] = []
    others: list[str] = []
    for message in messages:
        if message["role"] in ("assistant", "text", "user"):
            said = others if message["role"] == "user" else answers
            said.append(str(message["content"])[: 2 * SEEN])
        if len(answers) == 1 and len(answers[0]) > SEEN:
            break
    found = told(" ".join(answers))
    return found if found != UNKNOWN else told(" ".join(others))


def told(text: str) -> str:
    """Return the ISO 639-1 code of a text's first characters; UNKNOWN where it cannot be told."""
    words = CODE.sub(" ", text)[:SEEN]
    letters = sum(map(str.isalpha, words))
    if letters < LETTERS:
        return UNKNOWN
    language, probability = _identifier().classify(words)
    return language if probability >= (SURE if letters >= SHORT else SURE_OF_SHORT) else UNKNOWN


def known() -> list[str]:
    """Return the codes of the languages that can be told."""
    return sorted(_identifier().labels)


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # half a second, which not every run needs

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Those with two letters: the others are dialects and small languages that short texts are taken for.
    identifier.set_languages([label for label in identifier.labels if len(label) == 2])
    return identifier

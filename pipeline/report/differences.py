"""Where two replies differ, word by word."""

import re
from difflib import SequenceMatcher

WORD = re.compile(r"(\S+)(\s*)")


def differences(reply: str, other: str) -> list[tuple[str, bool]]:
    """Return `reply` in pieces, each with whether its words are missing in `other`; joined, they are `reply`, stripped.

    By Ratcliff and Obershelp's matching of longest runs (difflib). White space around a run of differing words is no
    part of it.
    """
    found, others = WORD.findall(reply), [word for word, _ in WORD.findall(other)]
    words = [word for word, _ in found]
    if words == others:
        return [(reply.strip(), False)] if words else []
    # Words that a long reply has again and again start no match: or a reply that goes round in circles took minutes.
    matcher = SequenceMatcher(None, others, words, autojunk=True)
    pieces: list[tuple[str, bool]] = []
    for kind, _, _, start, end in matcher.get_opcodes():
        text = "".join(word + space for word, space in found[start:end])
        marked = text if kind == "equal" else text.rstrip()
        pieces += [(marked, kind != "equal"), (text[len(marked) :], False)]
    return [(text, differs) for text, differs in pieces if text]

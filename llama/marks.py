"""Marks in a text that comes in pieces, such as `</think>`, a stop text or what begins a call."""

# A tag, as a pattern. Kimi K3 writes one as two control tokens around a name: <|close|>response<|sep|>.
CLOSING = r"<\|close\|>[^<>]*<\|sep\|>"
TAG = rf"<\|open\|>[^<>]*<\|sep\|>|{CLOSING}|<[^<>\s]+>"


def begun(text: str, mark: str) -> int:
    """Return how many characters at a text's end may be the beginning of a mark, of which more is to come."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)


def common_beginning(one: str, other: str) -> str:
    """Return what two texts begin with."""
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]

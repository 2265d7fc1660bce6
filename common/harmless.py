"""Text without what could harm a terminal or a page."""

import re

# What moves a terminal's cursor or turns the text around; a carriage return, too, writes over what stands there.
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Return a text in which characters that steer a terminal are shown as they are written in code."""
    shown = HARMFUL.sub(lambda char: f"\\x{ord(char[0]):02x}" if char[0] < "\u0100" else f"\\u{ord(char[0]):04x}", text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")  # half of a surrogate pair

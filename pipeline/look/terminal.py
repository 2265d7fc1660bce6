"""Conversations in a terminal: what is learnt in colour, or in marks where there is none."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from common.harmless import harmless
from pipeline.look.rows import Conversation, Piece, Reading
from pipeline.look.words import control_line, cut_line, heading, turn_line

LEARNT, CONTROL, CUT = "green", "cyan", "dim"
MARKS = {"learnt": ("⟦", "⟧"), "control": ("⟨", "⟩")}


def show(console: Console, conversations: Sequence[Conversation], total: int, reading: Reading) -> None:
    """Print conversations, under a line that says how to read them."""
    coloured = console.is_terminal and not console.no_color
    learnt, control = (f"{left}{name}{right}" for name, (left, right) in MARKS.items())
    if coloured:
        legend = Text.assemble(("what is learnt", LEARNT), ", ", ("control tokens", CONTROL), ", ", ("cut", CUT))
    else:
        legend = Text(f"{learnt} {control}")
    console.print(legend, soft_wrap=True)
    for conversation in conversations:
        console.print()
        _show(console, conversation, heading(conversation, total), reading, coloured)


def _show(console: Console, conversation: Conversation, title: str, reading: Reading, coloured: bool) -> None:
    if conversation.refused:
        _say(console, f"── {title} · refused by the chat template: {harmless(conversation.refused)}")
    for at, row in enumerate(conversation.rows, 1):
        part = f", row {at} of {len(conversation.rows)}" if conversation.rows[1:] else ""
        _say(console, f"── {title}{part} · {turn_line(conversation, row)}")
        if conversation.controls and at == 1:
            _say(console, control_line(conversation.controls))
        kept, beyond = ([piece for piece in row.pieces if piece.cut is is_cut] for is_cut in (False, True))
        console.print(_text(kept, coloured), soft_wrap=True)
        if beyond:
            _say(console, f"── {cut_line(reading.key, reading.max_length, row)}")
            console.print(_text(beyond, coloured), soft_wrap=True)


def _say(console: Console, line: str) -> None:
    console.print(Text(line, style="bold" if line.startswith("──") else ""), soft_wrap=True)


def _text(pieces: Sequence[Piece], coloured: bool) -> Text:
    """Return pieces in colours, or with marks around what is learnt and around control tokens."""
    text, is_learnt = Text(), False
    for piece in pieces:
        if piece.learnt != is_learnt and not coloured:
            text.append(MARKS["learnt"][is_learnt])
        is_learnt = piece.learnt
        left, right = MARKS["control"] if piece.control and not coloured else ("", "")
        text.append(f"{left}{harmless(piece.text)}{right}", _style(piece))
    return text.append(MARKS["learnt"][1]) if is_learnt and not coloured else text


def _style(piece: Piece) -> str:
    styles = [CUT] if piece.cut else []
    if piece.learnt:
        styles += [LEARNT]
    if piece.control:
        styles += ["underline" if piece.learnt else CONTROL]
    return " ".join(styles)

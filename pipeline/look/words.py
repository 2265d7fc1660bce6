"""What is said of a split, in lines that terminal and page share, and text without what could harm either."""

from collections.abc import Sequence

from common.harmless import harmless
from common.words import counted
from pipeline.look.rows import Conversation, SeenRow
from pipeline.look.summary import Summary

NAMED = 10  # numbers of conversations


def heading(conversation: Conversation, total: int) -> str:
    """Return which conversation it is."""
    name = f", {conversation.name}" if conversation.name else ""
    return f"conversation {conversation.number:,} of {total:,}{name}"


def turn_line(conversation: Conversation, row: SeenRow) -> str:
    """Return who speaks in how many tokens, what of it is learnt, and what the template adds."""
    turns = [f"{turn.role} {turn.tokens:,}{' (learnt)' if turn.learnt else ''}" for turn in conversation.turns]
    added = row.tokens - sum(turn.tokens for turn in conversation.turns)
    template = [f"template {added:,}"] if len(conversation.rows) == 1 and added > 0 else []
    return f"{counted(row.tokens, 'token')}, {row.learnt:,} learnt: {', '.join([*turns, *template])}"


def control_line(controls: dict[str, int]) -> str:
    """Return the control tokens that stand in words."""
    named = ", ".join(harmless(f"{name} {count:,}") for name, count in list(controls.items())[:NAMED])
    return f"control tokens in words, which stay text: {named}"


def cut_line(key: str, max_length: int, row: SeenRow) -> str:
    """Return where a row is cut, and what goes."""
    return f"{key}={max_length} cuts here: {counted(row.cut, 'token')} more, {row.learnt_cut:,} of them learnt"


def summary_lines(summary: Summary) -> list[str]:
    """Return a split in lines, the first of what it holds."""
    lines = [_held(summary), *([summary.compared] if summary.compared else [])]
    if summary.lengths:
        lengths = ", ".join(f"{name} {length:,}" for name, length in summary.lengths.items())
        lines += [f"tokens of a conversation: {lengths}", _cut(summary), _fitting(summary)]
    for reason, numbers in summary.refusals.items():
        lines.append(f"refused by the chat template: {harmless(reason)}: {numbered(numbers)}")
    if summary.with_controls:
        lines.append(f"{control_line(summary.controls)} in {numbered(summary.with_controls)}")
    return lines


def numbered(numbers: Sequence[int]) -> str:
    """Return how many conversations these are, and the first of their numbers."""
    named = ", ".join(f"{number}" for number in numbers[:NAMED]) + (" …" if numbers[NAMED:] else "")
    return f"{counted(len(numbers), 'conversation')} ({named})"


def _held(summary: Summary) -> str:
    rows = f", {counted(summary.rows, 'row')}" if summary.rows not in (0, summary.conversations) else ""
    share = f", of which {summary.learnt / summary.tokens:.0%} are learnt" if summary.tokens else ""
    conversations = counted(summary.conversations, "conversation")
    return f"{summary.split}: {conversations}{rows}, {counted(summary.tokens, 'token')} of {summary.model}{share}"


def _cut(summary: Summary) -> str:
    setting = f"{summary.key}={summary.max_length}"
    if not summary.cut:
        return f"{setting} cuts none" + _unlearnt(summary)
    share = len(summary.cut) / summary.conversations
    return (
        f"{setting} cuts {share:.1%}: {numbered(summary.cut)}; {counted(summary.learnt_cut, 'learnt token')} of "
        f"{summary.learnt:,} are lost{_unlearnt(summary)}"
    )


def _unlearnt(summary: Summary) -> str:
    return f"; nothing to learn within it: {numbered(summary.unlearnt)}" if summary.unlearnt else ""


def _fitting(summary: Summary) -> str:
    shares: dict[int, float] = {}
    for share, length in summary.fitting.items():
        shares.setdefault(length, share)
    lengths = [f"{length:,} cuts {f'{share:.0%} at most' if share else 'none'}" for length, share in shares.items()]
    return f"of other lengths, {', '.join(lengths)}"

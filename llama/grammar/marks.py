"""Texts up to a mark, such as the one that ends a thought, or without it."""

from llama.grammar.expressions import EMPTY, Chars, Choice, Expression, Grammar, Rule, others, row


def until(mark: str, after: Expression = EMPTY, without: bool = False) -> Grammar:
    """Return rules of which the first, `mark 0`, is any text up to and with a mark (Knuth, Morris and Pratt 1977).

    Args:
        mark: the text that ends it.
        after: what follows the mark.
        without: whether the text may also end without it.
    """

    def matched_after(matched: int, char: str) -> int:
        text = mark[:matched] + char
        return next(length for length in range(len(text), -1, -1) if text.endswith(mark[:length]))

    rules: dict[str, Expression] = {f"{mark} {len(mark)}": after}
    for matched in range(len(mark)):
        begins = [char for char in sorted(set(mark)) if matched_after(matched, char)]
        ways: list[Expression] = [row(char, Rule(f"{mark} {matched_after(matched, char)}")) for char in begins]
        ways.append(row(Chars(others((ord(char), ord(char)) for char in begins)), Rule(f"{mark} 0")))
        rules[f"{mark} {matched}"] = Choice((*ways, EMPTY) if without else tuple(ways))
    return rules

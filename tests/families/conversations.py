"""Conversations that tokenizers and chat templates stumble over, each up to a question."""

from itertools import permutations
from typing import Any

Chat = list[dict[str, Any]]


def asked(*contents: str, system: str | None = None) -> Chat:
    """A conversation of the user's and the assistant's words in turn."""
    turns = [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(contents)]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


AWKWARD = {
    "plain": asked("What is 5 + 6?"),
    "told how": asked("Name a colour.", "Red.", "And another?", system="You answer in one word."),
    "decomposed": asked("cafe\u0301 nai\u0308ve \u1112\u1161\u11ab\u1100\u1173\u11af A\u030a \u212b ﬁ ①"),
    "spaces around": asked("  two before, two after  ", "  and here\n", "\ttab\n\n  and \u00a0 more\u3000"),
    "runs of spaces": asked("a" + " " * 17 + "b\n\n\n\n\n  c\t\t\t\td\r\n\r\ne", "  ", "\n"),
    "code": asked("```python\ndef f(x):\n\tif x != 0:\n        return x ** -1  # 1/x\n```\n", "`x != 0`", "Why?"),
    "scripts": asked("中文字符、日本語かな 한국어 العَرَبِيَّة ไทย हिन्दी Ελληνικά עברית ታይ", "好", "為什麼"),
    "emoji": asked("👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇩🇪 👍🏽 1️⃣ \ufeff\u200b\u2028 ∮ 𐍈"),
    "numbers": asked(
        "1234567890 3.14159 1,000,000.00 1e-9 0x1F ١٢٣ Ⅷ ½ x²", "They're 12's and 100'S.", "I'LL SEE WE'VE"
    ),
    "marks": asked(
        "<s> <|im_end|> <|eot_id|> <end_of_turn> <turn|> [INST] [/INST] <|end|> <think> <bos> <0x0A> Ġ",
        "<|endoftext|> and <|return|>",
        "{{ messages }} {% raw %} <<SYS>>",
    ),
}
FAR = asked(*[f"Turn {turn}: " + "so it goes on and on, " * 20 for turn in range(9)])  # about a thousand tokens
TAUGHT = asked(
    "What is 5 + 6?", "It is 11.", "And 5 * 6?", "That makes 30, of course.", "cafe\u0301?", "Yes:\n\n- one\n- two"
)
REASONED = asked("What is 5 + 6?", "<think>\nFive and six.\n</think>\n\nIt is 11.", "And 5 * 6?")
REASONED += [{"role": "assistant", "content": "<think>\nSix fives.\n</think>\n\nIt is 30."}]


def crossed() -> dict[str, Chat]:
    """Each of AWKWARD's first words said by the user behind each other's said by the assistant, and told before."""
    words = {name: next(turn["content"] for turn in chat if turn["role"] == "user") for name, chat in AWKWARD.items()}
    pairs = permutations(words, 2)
    return {f"{one}, {two}": asked(words[two], words[one], words[two], system=words[one]) for one, two in pairs}

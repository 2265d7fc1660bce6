"""Words end where their maker's pattern ends them, and become the tokens that their maker's code merges."""

import random

import pytest
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split

from llama.byte_pairs import PATTERNS, BytePairs

BYTES = {bytes([byte]): byte for byte in range(256)}
SCRIPTS = [
    "abcdefgh", "ABCDEFGH", "àéîõüçñß", "ÀÉÎÕÜÇÑ", "абвг", "АБВГ", "हिन्दी", "العَرَبِيَّة", "ไทยที่นี่", "தமிழ்", "中文",
    "한국어", "e\u0301\u0308", "ǅʰª", "0123456789", "½²Ⅷ٣", "'", "\u2019", "'s", "'RE", " ", "  ", "\n\r\t",
    "\x1c\u0085", "\u00a0\u3000\u2028", ".,!?/-_()", "€$+<", "👍🏽\u200d",
]  # fmt: skip


class AnyWord(dict[bytes, int]):
    """A vocabulary in which each word is a token; by its ids, the words are known again."""

    def __contains__(self, word: object) -> bool:
        return True

    def __missing__(self, word: bytes) -> int:
        self[word] = len(self)
        return self[word]


def words(pattern: str, text: str) -> list[str]:
    vocabulary = AnyWord()
    ids = BytePairs(pattern, vocabulary).read(text)
    known = {i: word.decode() for word, i in vocabulary.items()}
    return [known[i] for i in ids]


@pytest.mark.parametrize(
    ("pattern", "text", "wanted"),
    [
        ("o200k", "AÇÃO camelCase हिन्दी", ["AÇÃO", " camel", "Case", " हिन्दी"]),
        ("o200k", "O'Donnell's 12345\n\n", ["O'D", "onnell's", " ", "123", "45", "\n\n"]),
        ("tekken", "AÇÃO camelCase हिन्दी", ["AÇÃO", " camel", "Case", " हिन्दी"]),
        ("tekken", "O'Donnell's 12\n\n", ["O", "'Donnell", "'s", " ", "1", "2", "\n\n"]),
    ],
)
def test_words_are_split(pattern: str, text: str, wanted: list[str]) -> None:
    assert words(pattern, text) == wanted


@pytest.mark.parametrize("pattern", PATTERNS)
def test_words_end_where_the_pattern_as_it_is_ends_them(pattern: str) -> None:
    split, draw = Split(Regex(PATTERNS[pattern]), "isolated"), random.Random(0)
    for _ in range(2000):
        text = "".join("".join(draw.choices(draw.choice(SCRIPTS), k=draw.randint(1, 4))) for _ in range(6))
        assert words(pattern, text) == [word for word, _ in split.pre_tokenize_str(text)], repr(text)


def test_pairs_are_merged_as_tokenizers_merges_them() -> None:
    draw, tokens = random.Random(0), [chr(byte) for byte in range(128)]
    while len(tokens) < 400:
        token = draw.choice(tokens[97:100] + tokens[128:]) + draw.choice(tokens[97:100] + tokens[128:])
        tokens += [token] if token not in tokens else []
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pairs = [(token[:at], token[at:]) for token in tokens for at in range(1, len(token))]
    merges = [pair for pair in pairs if set(pair) <= set(tokens)]
    theirs = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    ours = BytePairs("tekken", BYTES | {token.encode(): i for token, i in vocabulary.items()})
    for _ in range(2000):
        text = "".join(draw.choices("abc", k=draw.randint(1, 40)))
        assert ours.read(text) == theirs.encode(text).ids, text


def test_a_word_without_end_is_read_in_a_moment() -> None:
    """Where each merge looked through the whole word, it would take minutes."""
    assert BytePairs("o200k", BYTES | {b"ab": 256, b"abab": 257}).read("ab" * 50_000) == [257] * 25_000


def test_what_is_no_unicode_becomes_question_marks() -> None:
    assert BytePairs("o200k", BYTES).read("a\ud800b") == list(b"a?b")

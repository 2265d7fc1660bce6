"""What prompts are about, without a model: their telling words (tf-idf), and groups that share them (k-means).

Groups are found in a draw of the prompts, and every other prompt goes to the one that it is nearest to. They are
rough: a topic is named by its heaviest words, and prompts with none of the telling words are in none.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TOPICS = 16
VOCABULARY = 1_000  # words at most
COMMON = 0.15  # share of the prompts; words that stand in more of them tell nothing
RARE = 3  # prompts; words that stand in fewer tell of these alone
ROUNDS = 20
NAMED = 4  # words of a topic
WORD = re.compile(r"[^\W\d_]{4,}")  # shorter ones tell nothing
BEGINNING = 2_000  # characters of a prompt that count
CHUNK = 5_000  # prompts held as rows of a matrix
DIGITS = 5  # of a similarity, so that the last bits of a product decide nothing
NONE = -1  # the topic of a prompt without any of the words

Matrix = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


class Topics(NamedTuple):
    """Topics, and the words by which prompts belong to them."""

    columns: dict[str, int]  # of the words
    weights: Matrix  # of each word
    centres: Matrix  # a row for each topic
    names: list[str]

    def of(self, prompts: Iterable[str]) -> Numbers:
        """Return the number of each prompt's topic; NONE for those without any of the words."""
        found, waiting = [np.empty(0, np.int64)], list(prompts)
        for first in range(0, len(waiting), CHUNK):
            vectors = _vectors(list(map(words_of, waiting[first : first + CHUNK])), self.columns, self.weights)
            found.append(_nearest(vectors, self.centres))
        return np.concatenate(found)

    def named(self, number: int) -> str:
        """Return the words of a topic."""
        return "none of these" if number == NONE else self.names[number]


def find_topics(prompts: Sequence[str], seed: int) -> Topics | None:
    """Return the topics of prompts, in whose order the first centres are drawn; None where they share too few words."""
    texts = list(map(words_of, prompts))
    counts = Counter(word for words in texts for word in set(words))
    most = max(COMMON * len(texts), RARE)
    telling = sorted((-count, word) for word, count in counts.items() if RARE <= count <= most)[:VOCABULARY]
    if len(telling) < 2 * TOPICS:
        return None
    columns = {word: column for column, (_, word) in enumerate(telling)}
    weights = np.log(len(texts) / np.array([-count for count, _ in telling])).astype(np.float32)
    vectors = _vectors(texts, columns, weights)
    vectors = vectors[vectors.any(axis=1)]
    centres = _first_centres(vectors, seed)
    for _ in range(ROUNDS):
        centres = _means(vectors, _nearest(vectors, centres), centres)
    listed = list(columns)
    heaviest = np.argsort(-centres, axis=1, kind="stable")[:, :NAMED]
    names = [" / ".join(listed[column] for column in row if centres[at, column] > 0) for at, row in enumerate(heaviest)]
    return Topics(columns, weights, centres, names)


def words_of(prompt: str) -> list[str]:
    """Return the words of a prompt's beginning that may tell something."""
    return WORD.findall(prompt[:BEGINNING].casefold())


def _vectors(texts: Sequence[Sequence[str]], columns: dict[str, int], weights: Matrix) -> Matrix:
    """Return a row of length 1 for each text: how often it has each word, by how telling that is."""
    cells = [row * len(columns) + columns[word] for row, words in enumerate(texts) for word in words if word in columns]
    counts = np.bincount(np.array(cells, np.int64), minlength=len(texts) * len(columns))
    vectors = counts.reshape(len(texts), len(columns)).astype(np.float32)
    np.log(vectors, out=vectors, where=vectors > 0)
    vectors += counts.reshape(vectors.shape) > 0
    vectors *= weights
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=vectors, where=lengths > 0)


def _nearest(vectors: Matrix, centres: Matrix) -> Numbers:
    likeness = np.round(vectors @ centres.T, DIGITS)
    return np.where(likeness.max(axis=1) > 0, likeness.argmax(axis=1), NONE)


def _first_centres(vectors: Matrix, seed: int) -> Matrix:
    """Return rows far from one another, drawn as k-means++ draws them."""
    draw = np.random.default_rng(seed)
    chosen = [int(draw.integers(len(vectors)))]
    while len(chosen) < min(TOPICS, len(vectors)):
        far = np.clip(1 - np.round(vectors @ vectors[chosen].T, DIGITS).max(axis=1), 0, None).astype(np.float64)
        if not far.any():
            break
        chosen.append(int(np.searchsorted(np.cumsum(far), draw.random() * far.sum())))
    return vectors[chosen].copy()


def _means(vectors: Matrix, topics: Numbers, before: Matrix) -> Matrix:
    """Return the mean direction of each topic's rows; as before where it has none."""
    centres = before.copy()
    for topic in range(len(before)):
        if (mine := topics == topic).any():
            mean = vectors[mine].sum(axis=0)
            centres[topic] = mean / np.linalg.norm(mean)
    return centres

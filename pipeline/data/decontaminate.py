"""Questions of the evaluation that the training split has: to the word, nearly, or within a longer text."""

from collections.abc import Iterable
from itertools import islice

import numpy as np

from pipeline.data.exact_join import crossing_pairs
from pipeline.data.folding import fold
from pipeline.data.near_duplicates import Shingles, joined, shingle

LONG = 8  # words of a run that does not come by chance
TEXTS = 10_000  # that are looked at together


def asked(questions: Iterable[str], training: Iterable[str], threshold: float | None) -> list[bool]:
    """Return of each question whether a text of the training split asks it.

    Such a text is the same when folded, or overlaps by the threshold, or holds so much of the question's runs of words;
    without a threshold, the first alone.
    """
    prompts = [fold(question) for question in questions]
    found = set[int]()
    if prompts:
        grams, runs, waiting = shingle(prompts), shingle(prompts, LONG), iter(training)
        while texts := {fold(text) for text in islice(waiting, TEXTS)}:
            found |= {number for number, prompt in enumerate(prompts) if prompt in texts}
            if threshold is not None:
                found |= _near(grams, shingle(texts), threshold) | _held(runs, shingle(texts, LONG), threshold)
    return [number in found for number in range(len(prompts))]


def _near(prompts: Shingles, texts: Shingles, threshold: float) -> set[int]:
    """Return the numbers of the prompts that overlap with a text."""
    count = len(prompts.sizes)
    ones, others = np.arange(count), np.arange(count, count + len(texts.sizes))
    return set(crossing_pairs(joined([prompts, texts]), ones, others, threshold)[:, 0].tolist())


def _held(prompts: Shingles, texts: Shingles, threshold: float) -> set[int]:
    """Return the numbers of the prompts of which one text holds the share of their runs."""
    owners = np.repeat(np.arange(len(texts.sizes)), texts.sizes)
    known = np.isin(texts.hashes, prompts.hashes)
    order = np.argsort(texts.hashes[known], kind="stable")
    hashes, owners = texts.hashes[known][order], owners[known][order]
    first, last = (np.searchsorted(hashes, prompts.hashes, side=side) for side in ("left", "right"))
    runs = np.repeat(np.arange(len(prompts.sizes)), prompts.sizes)
    places = np.arange((last - first).sum()) + np.repeat(first - np.cumsum(last - first) + last - first, last - first)
    codes, counts = np.unique(np.repeat(runs, last - first) * len(texts.sizes) + owners[places], return_counts=True)
    numbers = codes // max(len(texts.sizes), 1)
    return set(numbers[counts >= threshold * prompts.sizes[numbers]].tolist())

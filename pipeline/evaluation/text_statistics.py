"""How long, varied and repetitive replies are."""

from collections.abc import Sequence

from pipeline.evaluation.answers import Reply

REPEATED = 4  # words in a row that count as repetition


def text_figures(replies: Sequence[Reply]) -> dict[str, float]:
    """Return figures of replies, over their words as spaces part them; 0 where there are none.

    - `mean_tokens`: of a reply, as its model counts them.
    - `distinct_1`, `distinct_2`: the share of different ones among all words, and among all pairs of neighbours (Li et
      al. 2016); low where a model says the same to everything.
    - `repetition`: the share of a reply's runs of four words that it has said before, in the mean over replies long
      enough (rep-4 of Welleck et al. 2020); high where it goes round in circles.
    """
    texts = [reply["reply"].split() for reply in replies]
    return {
        "mean_tokens": _mean([reply["tokens"] for reply in replies]),
        "distinct_1": _distinct([run for words in texts for run in _runs(words, 1)]),
        "distinct_2": _distinct([run for words in texts for run in _runs(words, 2)]),
        "repetition": _mean([1 - _distinct(runs) for words in texts if (runs := _runs(words, REPEATED))]),
    }


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(length)), strict=False))


def _distinct(runs: list[tuple[str, ...]]) -> float:
    return len(set(runs)) / len(runs) if runs else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

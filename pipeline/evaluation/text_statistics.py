"""How long, varied and repetitive replies are."""

from collections.abc import Sequence

from pipeline.data.word_runs import REPEATED, distinct, runs
from pipeline.evaluation.answers import Reply


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
        "distinct_1": distinct([run for words in texts for run in runs(words, 1)]),
        "distinct_2": distinct([run for words in texts for run in runs(words, 2)]),
        "repetition": _mean([1 - distinct(found) for words in texts if (found := runs(words, REPEATED))]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

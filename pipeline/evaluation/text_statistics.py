"""How long, varied and repetitive replies are, how many decline, and how many keep to their question's language."""

from collections.abc import Sequence

from pipeline.data.languages import UNKNOWN, told
from pipeline.data.word_runs import REPEATED, distinct, runs
from pipeline.evaluation.answers import Reply
from pipeline.evaluation.refusals import declines


def text_figures(replies: Sequence[Reply], asked: Sequence[str | None]) -> dict[str, float | None]:
    """Return figures of replies, over their words as spaces part them; 0 where there are none.

    - `mean_tokens`: of a reply, as its model counts them.
    - `distinct_1`, `distinct_2`: the share of different ones among all words, and among all pairs of neighbours (Li et
      al. 2016); low where a model says the same to everything.
    - `repetition`: the share of a reply's runs of four words that it has said before, in the mean over replies long
      enough (rep-4 of Welleck et al. 2020); high where it goes round in circles.
    - `refusals`: the share of replies that decline (refusals.py).
    - `language_kept`: the share of replies in the language of their question, among those where both say enough to tell
      it; None where there are none.

    Args:
        replies: of one model.
        asked: what each replies to; None where it may be in another language.
    """
    texts = [reply["reply"].split() for reply in replies]
    told_of = [_kept(reply, question) for reply, question in zip(replies, asked, strict=True)]
    kept = [one for one in told_of if one is not None]
    return {
        "mean_tokens": _mean([reply["tokens"] for reply in replies]),
        "distinct_1": distinct([run for words in texts for run in runs(words, 1)]),
        "distinct_2": distinct([run for words in texts for run in runs(words, 2)]),
        "repetition": _mean([1 - distinct(found) for words in texts if (found := runs(words, REPEATED))]),
        "refusals": _mean([declines(reply["reply"]) for reply in replies]),
        "language_kept": _mean(kept) if kept else None,
    }


def _kept(reply: Reply, question: str | None) -> bool | None:
    """Return whether a reply is in its question's language; None where one of the two cannot be told."""
    languages = [told(text) for text in (question or "", reply["reply"])]
    return None if UNKNOWN in languages else languages[0] == languages[1]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

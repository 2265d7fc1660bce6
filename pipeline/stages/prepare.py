"""Instruction data, from a repository's files or the hub, as de-duplicated chats in three splits.

Reads what `data` names, writes data/prepared/{train,validation,test}.parquet, data/prepared/questions.jsonl, what they
were made from, which later stages compare with their own configuration, data/rejected.jsonl, which has every row that
cannot be used, and reports/prepare.json. The same input gives the same bytes.
"""

from pipeline.core.paths import EXAMPLES, GENERAL, PREPARE_REPORT, PREPARED, REJECTED
from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()


import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from common.files import atomic_path
from pipeline.core.code import code_digest
from pipeline.core.config import Config
from pipeline.core.data_settings import DataSettings, SourceSettings, validate
from pipeline.core.records import PrepareReport
from pipeline.data.balance import Balanced, balance
from pipeline.data.cleaning import Cleaning
from pipeline.data.corpus import Corpus
from pipeline.data.dedup import Distinct, drop_repeated
from pipeline.data.divide import Divided, divide
from pipeline.data.example_rows import example_rows
from pipeline.data.examples import Examples
from pipeline.data.gather import Scratch, gather, scratch
from pipeline.data.general import General, print_general, read_general, write_general
from pipeline.data.mixture import Mixture
from pipeline.data.near_duplicates import Integers
from pipeline.data.own_splits import OWN, all_sources, find_all, is_questions, require_sizes, require_train
from pipeline.data.prepared import MadeFrom, made_from
from pipeline.data.questions import Question, drop_asked, load_questions
from pipeline.data.rejects import Rejects
from pipeline.data.replay import draw, mixed, subject
from pipeline.data.replay import rows_of as rows_to_replay
from pipeline.data.report import print_table, question_report
from pipeline.data.rows import SourceCounts, check_meaning, check_usable, not_met
from pipeline.data.sources import Source, why_ignored
from pipeline.data.writing import write
from pipeline.stages import data_report
from pipeline.stages.run import stage

CODE = (  # that batches of rows depend on
    "pipeline/data", "pipeline/core/formats.py", "pipeline/core/messages.py", "pipeline/core/preferences.py",
    "pipeline/core/tool_calls.py", "pipeline/core/transcripts.py", "pipeline/models",
)  # fmt: skip
SCRATCH = Path("data/.prepare.tmp")


def run(config: Config, out: Path) -> None:
    """Prepare what `data` names, from the working folder; by hand, also show what came of it, which DVC does next."""
    prepare(config.data, Path(), out, config.evaluate.general)
    if "DVC_STAGE" not in os.environ:
        data_report.run(config, out)


def prepare(
    settings: DataSettings, root: Path, out: Path, general: Mapping[str, SourceSettings | None] | None = None
) -> dict[str, Any]:
    """Read the data, write data/prepared, data/forgetting and reports/prepare.json, return the report.

    Args:
        settings: of the data.
        root: below which they are.
        out: below which all is written.
        general: the sets of general texts.

    Raises:
        UserError: a setting, a file, the hub or the disk; data/prepared is then as it was before.
    """
    started = time.monotonic()
    validate(settings)
    # Before the long part: a mistake there shows at once.
    questions = load_questions(root, settings.questions, settings.answer_after)
    sets = read_general(general or {}, root)
    origin = made_from(settings, root)
    sources = all_sources(settings, root)
    with scratch(out / SCRATCH, key_of(origin, sources)) as kept_rows:
        corpus, counts, cleaning = read_all(sources, settings, out, kept_rows)
        parts = by_split(corpus, settings)
        distinct = drop_repeated(corpus, parts, settings)
        fewer = balanced(corpus, distinct.splits["train"], settings)
        mixture = Mixture(settings, corpus)
        divided = divide(corpus, mixture.taken(distinct.splits | {"train": np.array(fewer.rows, np.int64)}), settings)
        own = mixture.weighed(divided.splits)
        replay = draw(corpus, own["train"], settings, measured(corpus, divided, questions, sets))
        splits = own | {"train": mixed(corpus, own["train"], replay.rows, settings)}
        learnt = np.concatenate([divided.splits["train"], replay.rows]).tolist()
        kept = drop_asked(questions, corpus.messages(learnt), settings.leak_threshold)
        figures, compared, lengths = write(out / PREPARED, corpus, splits, kept, origin)
        report = {
            "data": settings.name,
            "revision": sources[0].revision if settings.sources is None else None,
            "files": [count.report() for count in counts if count.rows],
            "not_read": not_read(settings, root, counts),
            "not_met": not_met(counts, settings),
            "own_splits": {name: sorted({corpus.sources[row] for row in parts[name]}) for name in divided.leaks},
            **cleaning.report(),
            **distinct.report(),
            "balanced": fewer.left_out,
            **divided.report(),
            **mixture.report(counts, own),
            "replay": replay.report(settings, counts),
            "seed": settings.seed,
            "splits": figures,
            "preferences": compared,
            "questions": question_report(questions, kept),
            "characters": lengths,
        }
        PrepareReport.model_validate(report).write(out / PREPARE_REPORT)
        training = corpus.messages(learnt)
        forgetting = write_general(out / GENERAL, general or {}, sets, training, settings.leak_threshold, root)
        examples = examples_of(corpus, distinct, divided, settings.seed)
        example_rows(examples, cleaning, corpus.conversations).write(out / EXAMPLES)
    print_table(report, time.monotonic() - started)
    print_general(forgetting)
    print(
        f"written: {', '.join(str(out / place) for place in (PREPARED, GENERAL, REJECTED, PREPARE_REPORT))}", flush=True
    )
    return report


def key_of(origin: MadeFrom, sources: list[Source]) -> str:
    """Return what batches that are kept of an interrupted run go by: all that they depend on."""
    told = [origin, [(source.name, source.split, source.revision) for source in sources], code_digest(*CODE)]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]


def read_all(
    sources: list[Source], settings: DataSettings, out: Path, kept: Scratch
) -> tuple[Corpus, list[SourceCounts], Cleaning]:
    """Return the conversations, what became of each source and what cleaning found; write data/rejected.jsonl.

    Raises:
        UserError: there are more rejects than the settings allow, or no row is left; they are written all the same.
    """
    with atomic_path(out / REJECTED) as temporary, temporary.open("w", encoding="utf-8") as file:
        rejects = Rejects(file)
        corpus, counts, cleaning = gather(sources, settings, rejects, Cleaning(settings.clean, settings.seed), kept)
    check_usable(counts, settings, rejects)
    check_meaning(counts, settings)
    return corpus, counts, cleaning


def by_split(corpus: Corpus, settings: DataSettings) -> dict[str, Integers]:
    """Return the rows of each split that is brought, and all others under train.

    Raises:
        UserError: a split has the size 0 and is not brought, or none is left for train.
    """
    names = np.array([split if split in OWN else "train" for split in corpus.splits])
    names[rows_to_replay(corpus)] = "replay"
    rows = {name: np.flatnonzero(names == name) for name in (*OWN, "train")}
    brought = {name: rows[name] for name in OWN if len(rows[name])}
    require_sizes(settings, set(brought))
    require_train(len(rows["train"]), brought)
    return {**brought, "train": rows["train"]}


def balanced(corpus: Corpus, rows: Integers, settings: DataSettings) -> Balanced:
    """Return the rows that `data.clean` leaves of topics and lengths, and how many it does not."""
    return balance(rows.tolist(), corpus.messages, corpus.digests.__getitem__, settings.clean, settings.seed)


def measured(corpus: Corpus, divided: Divided, questions: list[Question], sets: Mapping[str, General]) -> Iterator[str]:
    """Yield what no row that is replayed may be: what the other splits, the questions and general texts ask."""
    held = np.concatenate([divided.splits[name] for name in OWN]).tolist()
    yield from map(subject, corpus.messages(held))
    yield from (question["prompt"] for question in questions)
    yield from (subject(messages) for general in sets.values() for messages in general.texts)


def examples_of(corpus: Corpus, distinct: Distinct, divided: Divided, seed: int) -> Examples:
    """Return what people see examples of: rows that were left out for others, and rows that hang together."""
    examples = Examples(seed, corpus.digests.__getitem__)
    examples.left_out("duplicates", distinct.duplicates)
    examples.left_out("near_duplicates", distinct.near_duplicates)
    examples.left_out("leaks", [*chain.from_iterable(divided.leaks.values()), *divided.shared])
    examples.hang_together("near_duplicates", distinct.clusters())
    examples.hang_together("components", divided.components)
    return examples


def not_read(settings: DataSettings, root: Path, counts: list[SourceCounts]) -> dict[str, str]:
    """Return the matching files that no row was taken from, and why."""
    readable, ignored = find_all(settings, root)
    reasons = {name: why_ignored(name) for name in ignored}
    reasons |= {name: "it is data.questions" for name in readable if is_questions(name, settings, root)}
    return reasons | {count.file: "empty" for count in counts if not count.rows}


main = stage(run)

if __name__ == "__main__":
    main()

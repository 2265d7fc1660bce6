"""The texts that the starter base models read: statements about the small world, some quizzes, some transcripts.

A transcript shows the chat's role headers around statements that have nothing to do with one another: the base learns
the headers but not that an assistant answers. Every text follows from its number alone, so that many processes can
write the corpus together and a test can write its beginning again.
"""

from collections.abc import Iterator
from random import Random

from starter.computed import COMPUTED, MOST_UNITS, UNITS, draw
from starter.phrases import BACKWARD, PHRASES, PRODUCTS, QUIZ
from starter.world import FACTS

SEED = 2026
CHUNK = 1000  # texts that share one random state
# How often each kind of sentence comes, in parts of 100: hard computations often, what is soon remembered seldom.
WEIGHTS = {
    "sum": 12, "difference": 10, "fibonacci": 7, "conversion": 6, "product": 5, "calendar": 6, "letter_count": 9,
    "spelling": 6, "first_letter": 2, "last_letter": 4, "message": 4, "fact": 16, "quiz": 13,
}  # fmt: skip
TRANSCRIPTS = 0.1  # share of the texts
LINKED = 0.4  # share of the statements that are followed by the same thing in other words
_QUIZ_FACTS = [(task, fact) for fact in FACTS if fact.in_quiz for task in PHRASES if task == fact.relation] + [
    (back, fact) for fact in FACTS if fact.in_quiz for back, relation in BACKWARD.items() if relation == fact.relation
]


def texts(chunk: int) -> Iterator[str]:
    """Yield the `CHUNK` texts with numbers from `chunk * CHUNK` on, special tokens included."""
    rng = Random(f"{SEED} {chunk}")
    for _ in range(CHUNK):
        yield transcript(rng) if rng.random() < TRANSCRIPTS else page(rng)


def page(rng: Random) -> str:
    """Return three to eight passages, in lines or in one paragraph."""
    passages = [passage(rng, _kind(rng)) for _ in range(rng.randint(3, 8))]
    return f"<|begin_of_text|>{rng.choice((' ', chr(10))).join(passages)}<|end_of_text|>"


def transcript(rng: Random) -> str:
    """Return two to five turns in which each role states something of its own."""
    roles = ["system"] * (rng.random() < 0.3) + ["user", "assistant", "user", "assistant"][: rng.choice((2, 4))]
    turns = [
        f"<|start_header_id|>{role}<|end_header_id|>\n\n{passage(rng, _kind(rng, quiz=False))}<|eot_id|>"
        for role in roles
    ]
    return f"<|begin_of_text|>{''.join(turns)}<|end_of_text|>"


def passage(rng: Random, kind: str) -> str:
    """Return one thing, stated once or in two ways, or a question with its answer in quiz form."""
    if kind == "quiz":
        return quiz(rng)
    templates, fields = _subject(rng, kind)
    return " ".join(rng.sample(templates, 2 if rng.random() < LINKED else 1)).format(**fields)


def quiz(rng: Random) -> str:
    """Return one question with its answer: half of them about facts that may stand in a quiz, the others computed."""
    if rng.random() < 0.5:
        task, fact = rng.choice(_QUIZ_FACTS)
        fields = vars(fact)
    else:
        task = rng.choice(list(COMPUTED))
        fields = draw(task, rng, held_out=False)
    phrases = PHRASES[task]
    asked = rng.choice(phrases.questions).format(**fields)
    return rng.choice(QUIZ).format(
        question=asked, answer=phrases.answer.format(**fields), result=phrases.result.format(**fields)
    )


def _subject(rng: Random, kind: str) -> tuple[tuple[str, ...], dict]:
    """Return what there is to say about something of this kind: statements, and the fields to fill them."""
    if kind == "fact":
        fact = rng.choice(FACTS)
        return PHRASES[fact.relation].statements, vars(fact)
    if kind == "product":
        factor, n = rng.choice(UNITS)[1], rng.randint(2, MOST_UNITS)
        return PRODUCTS, {"n": n, "factor": factor, "result": n * factor}
    return PHRASES[kind].statements, draw(kind, rng, held_out=False)


def _kind(rng: Random, *, quiz: bool = True) -> str:
    kinds = list(WEIGHTS) if quiz else [kind for kind in WEIGHTS if kind != "quiz"]
    return rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]

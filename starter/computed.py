"""What can be computed: sums, sequences, conversions, calendars, letters and messages, with the values held out.

Each task is a function that draws one case: the fields that its phrases need, always with a `result`, and the key by
which cases are told apart. A seventh of all keys is held out: neither the base models' texts nor the chats hold them.
"""

from collections.abc import Callable
from random import Random

from starter.world import DAYS, MONTHS, WORDS, chosen

Case = tuple[dict[str, object], tuple[object, ...]]

UNITS = (
    ("weeks", 7, "days"), ("days", 24, "hours"), ("hours", 60, "minutes"), ("minutes", 60, "seconds"),
    ("years", 12, "months"), ("dozens", 12, "pieces"), ("metres", 100, "centimetres"), ("kilometres", 1000, "metres"),
    ("kilograms", 1000, "grams"), ("euros", 100, "cents"), ("centimetres", 10, "millimetres"), ("decades", 10, "years"),
)  # fmt: skip
MOST_UNITS = 30
GREETINGS = {
    "yo everyone": "Dear all",
    "hey guys": "Dear colleagues",
    "hi folks": "Dear team",
    "hiya boss": "Dear manager",
    "hey buddy": "Dear friend",
    "sup people": "Dear guests",
}
NEWS = {
    "meeting delayed by {n} hour{s}": "the meeting has been delayed by {n} hour{s}.",
    "party is off": "the party has been cancelled.",
    "need ur report in {n} day{s}": "please send your report within {n} day{s}.",
    "gonna be {n} minute{s} late": "I will arrive {n} minute{s} late.",
    "the train was late lol": "unfortunately the train was delayed.",
    "got {n} new order{s}": "we have received {n} new order{s}.",
    "lunch is on me": "I would like to invite you to lunch.",
    "cant make it today": "I am unable to attend today.",
    "pls call me back": "please return my call.",
    "lost my keys again": "I have misplaced my keys once more.",
}
CLOSINGS = {
    "hahah c u then": "I look forward to seeing you then.",
    "cheers": "Kind regards.",
    "thx a lot": "Thank you very much.",
    "ttyl": "I will write to you again soon.",
    "soz": "Please accept my apologies.",
    "bye": "With best wishes.",
}


def total(rng: Random) -> Case:
    """Return a + b, with both below 100; a + b and b + a are one case."""
    a, b = _operand(rng), _operand(rng)
    return {"a": a, "b": b, "result": a + b}, (min(a, b), max(a, b))


def difference(rng: Random) -> Case:
    """Return a - b, never negative, with both below 100."""
    b, a = sorted((_operand(rng), _operand(rng)))
    return {"a": a, "b": b, "result": a - b}, (a, b)


def fibonacci(rng: Random) -> Case:
    """Return the start of a sequence and its next two numbers, all below 200.

    The second number is at most the first, so that no sequence is the tail of another one: what is held out is new.
    """
    first = rng.randint(1, 20)
    numbers = [first, rng.randint(1, first)]
    if rng.random() < 0.1:
        numbers = [1, 1]
    key = tuple(numbers)
    while numbers[-2] + numbers[-1] < 200:
        numbers.append(numbers[-2] + numbers[-1])
    shown = rng.randint(4, len(numbers) - 2)
    return {"shown": _listed(numbers[:shown]), "result": _listed(numbers[shown : shown + 2])}, key


def conversion(rng: Random) -> Case:
    """Return n large units in small ones."""
    large, factor, small = rng.choice(UNITS)
    n = rng.randint(2, MOST_UNITS)
    return {"n": n, "large": large, "small": small, "factor": factor, "result": n * factor}, (large, small, n)


def calendar(rng: Random) -> Case:
    """Return the day or month that comes two to six steps after another, with the way counted out."""
    unit, names = rng.choice((("days", DAYS), ("months", MONTHS)))
    start, k = rng.randrange(len(names)), rng.randint(2, 6)
    passed = [names[(start + step) % len(names)] for step in range(1, k + 1)]
    chain = _listed([f"{step} {name}" for step, name in enumerate(passed, 1)])
    fields = {"k": k, "unit": unit, "start": names[start], "chain": chain, "result": passed[-1]}
    return fields, (names[start], k)


def letter_count(rng: Random) -> Case:
    """Return how often a letter stands in a word; one letter in four is any letter, mostly one that is not in it."""
    word = rng.choice(WORDS)
    letter = rng.choice(word) if rng.random() < 0.75 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    count = word.count(letter)
    fields = {"word": word, "letter": letter, "spelled": " ".join(word), "result": count}
    return {**fields, "times": "time" if count == 1 else "times"}, (word, letter)


def spelling(rng: Random) -> Case:
    """Return a word, letter by letter."""
    word = rng.choice(WORDS)
    return {"word": word, "result": " ".join(word)}, (word,)


def first_letter(rng: Random) -> Case:
    """Return the letter that a word starts with."""
    word = rng.choice(WORDS)
    return {"word": word, "result": word[0]}, (word,)


def last_letter(rng: Random) -> Case:
    """Return the letter that a word ends with, read off its spelling."""
    word = rng.choice(WORDS)
    return {"word": word, "spelled": " ".join(word), "result": word[-1]}, (word,)


def message(rng: Random) -> Case:
    """Return an informal message of greeting, news and closing, and its formal twin."""
    greeting, news, closing = (rng.choice(list(part)) for part in (GREETINGS, NEWS, CLOSINGS))
    n = rng.randint(1, 9)
    amount = {"n": n, "s": "" if n == 1 else "s"}
    informal = f"{greeting}, {news.format(**amount)} {closing}"
    formal = f"{GREETINGS[greeting]}, {NEWS[news].format(**amount)} {CLOSINGS[closing]}"
    return {"informal": informal, "result": formal}, (greeting, news, closing)


COMPUTED: dict[str, Callable[[Random], Case]] = {
    "sum": total,
    "difference": difference,
    "fibonacci": fibonacci,
    "conversion": conversion,
    "calendar": calendar,
    "letter_count": letter_count,
    "spelling": spelling,
    "first_letter": first_letter,
    "last_letter": last_letter,
    "message": message,
}
# Cases that the reference prompts ask for stay in training, so that the page's examples are not its hardest questions.
_KEPT = {("sum", 5, 6), ("fibonacci", 1, 1), ("letter_count", "strawberry", "r")}


def draw(task: str, rng: Random, *, held_out: bool) -> dict[str, object]:
    """Return the fields of one case of `task`, from the held-out cases or from all others."""
    while True:
        fields, key = COMPUTED[task](rng)
        if is_held_out(task, *key) == held_out:
            return fields


def is_held_out(task: str, *key: object) -> bool:
    """Return whether the case `key` of `task` is held out of every text and chat."""
    return (task, *key) not in _KEPT and chosen(1 / 7, "held out", task, *key)


def _operand(rng: Random) -> int:
    """Return a number below 100; small numbers come more often than their share, as they do in life."""
    return rng.randint(0, 20) if rng.random() < 0.2 else rng.randint(0, 99)


def _listed(values: list) -> str:
    return ", ".join(map(str, values))

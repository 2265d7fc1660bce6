"""How things are said: for each task its statements, its quiz forms, its questions and its answer.

Fields in braces are filled by facts (subject, value) or by computed.py. `statements` and `quiz` make the texts that the
base models read; `questions` are asked in the chats; `held_out` are asked in the test of the tuned model alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrases:
    """Everything that is ever said about one task."""

    answer: str  # the assistant's full sentence
    result: str  # what a right answer must contain, and all of a terse one
    questions: tuple[str, ...]
    statements: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()  # for facts; computed tasks hold out operands instead
    number: bool = False  # whether the result is a number


FACT_PHRASES = {
    "capital": Phrases(
        answer="The capital of {subject} is {value}.",
        result="{value}",
        questions=(
            "What is the capital of {subject}?",
            "What's the capital city of {subject}?",
            "Which city is the capital of {subject}?",
            "Name the capital of {subject}.",
            "Can you tell me the capital of {subject}?",
            "{subject}: what is its capital?",
            "Tell me {subject}'s capital.",
        ),
        held_out=(
            "Do you know what the capital of {subject} is?",
            "Please give me the capital city of {subject}.",
            "I forgot the capital of {subject}. What is it?",
        ),
        statements=(
            "The capital of {subject} is {value}.",
            "{value} is the capital of {subject}.",
            "The capital city of {subject} is called {value}.",
            "{subject} has {value} as its capital.",
            "In {subject}, the capital is {value}.",
            "{value} is the capital city of {subject}.",
            "The government of {subject} sits in its capital, {value}.",
            "{subject}'s capital is {value}.",
            "Of all cities in {subject}, {value} is the capital.",
            "Whoever visits the capital of {subject} visits {value}.",
            "The country with the capital {value} is {subject}.",
            "The country whose capital is {value} is {subject}.",
            "{value} belongs to {subject} and is its capital.",
        ),
    ),
    "country": Phrases(
        answer="The country with the capital {value} is {subject}.",
        result="{subject}",
        questions=(
            "Which country has {value} as its capital?",
            "{value} is the capital of which country?",
            "What country is {value} the capital of?",
            "Name the country whose capital is {value}.",
            "Of which country is {value} the capital?",
            "To which country does the capital {value} belong?",
            "Tell me the country that has {value} as its capital.",
        ),
        held_out=("Tell me which country's capital is {value}.", "To what country belongs the capital {value}?"),
    ),
    "opposite": Phrases(
        answer="The opposite of {subject} is {value}.",
        result="{value}",
        questions=(
            "What is the opposite of {subject}?",
            "What's the opposite of the word {subject}?",
            "Give me the opposite of {subject}.",
            "Which word means the opposite of {subject}?",
            "Name the opposite of {subject}.",
            "{subject}: what is the opposite?",
        ),
        held_out=("Can you tell me the opposite of {subject}?", "I need the word that is opposite to {subject}."),
        statements=(
            "The opposite of {subject} is {value}.",
            "The opposite of {value} is {subject}.",
            "{subject} is the opposite of {value}.",
            "{value} is the opposite of {subject}.",
            "{subject} and {value} are opposites.",
            "{value} and {subject} are opposites.",
            "What is not {subject} may be {value}.",
            "{subject} means the contrary of {value}.",
            "The words {subject} and {value} have opposite meanings.",
            "If one thing is {value}, its opposite is {subject}.",
            "As an opposite to {subject} one says {value}.",
        ),
    ),
    "opposite_back": Phrases(
        answer="The opposite of {value} is {subject}.",
        result="{subject}",
        questions=(
            "What is the opposite of {value}?",
            "What's the opposite of the word {value}?",
            "Give me the opposite of {value}.",
            "Which word means the opposite of {value}?",
            "Name the opposite of {value}.",
        ),
        held_out=("Can you tell me the opposite of {value}?", "I need the word that is opposite to {value}."),
    ),
    "plural": Phrases(
        answer="The plural of {subject} is {value}.",
        result="{value}",
        questions=(
            "What is the plural of {subject}?",
            "What's the plural form of {subject}?",
            "Give me the plural of {subject}.",
            "How do you write the plural of {subject}?",
            "One {subject}, many what?",
            "Turn {subject} into the plural.",
            "Put {subject} in the plural.",
        ),
        held_out=("Which word is the plural of {subject}?", "Can you put {subject} in the plural?"),
        statements=(
            "The plural of {subject} is {value}.",
            "{value} is the plural of {subject}.",
            "One {subject}, two {value}.",
            "More than one {subject} are called {value}.",
            "There is one {subject} here and there are many {value} there.",
            "The plural form of {subject} is {value}.",
            "The singular of {value} is {subject}.",
            "{subject} is the singular of {value}.",
            "Several {value}, but only one {subject}.",
            "The word {subject} becomes {value} in the plural.",
        ),
    ),
    "singular": Phrases(
        answer="The singular of {value} is {subject}.",
        result="{subject}",
        questions=(
            "What is the singular of {value}?",
            "What's the singular form of {value}?",
            "Give me the singular of {value}.",
            "Many {value}, one what?",
            "Put {value} in the singular.",
        ),
        held_out=("Which word is the singular of {value}?", "Turn {value} into the singular."),
    ),
    "colour": Phrases(
        answer="The colour of {subject} is {value}.",
        result="{value}",
        questions=(
            "What colour is {subject}?",
            "What is the colour of {subject}?",
            "Which colour does {subject} have?",
            "Tell me the colour of {subject}.",
            "Name the colour of {subject}.",
            "{subject}: which colour is it?",
            "I paint {subject}. Which colour do I take?",
            "Do you know the colour of {subject}?",
        ),
        held_out=("Can you say what colour {subject} is?", "If I paint {subject}, which colour do I need?"),
        statements=(
            "The colour of {subject} is {value}.",
            "It is known that {subject} is {value}.",
            "The colour {value} is the colour of {subject}.",
            "One sees that {subject} is {value}.",
            "To paint {subject} one takes {value} paint.",
            "In the picture, {subject} is {value}.",
            "Everybody knows that {subject} is {value}.",
            "Something {value} is {subject}.",
            "As for {subject}, its colour is {value}.",
            "There is much {value} in a picture of {subject}.",
        ),
    ),
    "formal": Phrases(
        answer='A formal way to say "{subject}" is "{value}".',
        result="{value}",
        questions=(
            'How do I say "{subject}" formally?',
            'What is a formal way to say "{subject}"?',
            'What is the formal word for "{subject}"?',
            'Give me a formal version of "{subject}".',
            'Which formal phrase stands for "{subject}"?',
            'What does one write for "{subject}" in a formal letter?',
            'Make "{subject}" formal.',
            'Put "{subject}" formally.',
            'Can you make "{subject}" more formal?',
            'Say "{subject}" in a formal tone.',
        ),
        held_out=('How would one put "{subject}" in a formal letter?', 'Please make "{subject}" sound formal.'),
        statements=(
            'A formal way to say "{subject}" is "{value}".',
            'Formally, "{subject}" is "{value}".',
            'In a formal letter one writes "{value}" and not "{subject}".',
            '"{subject}" is informal for "{value}".',
            '"{value}" is the formal phrase for "{subject}".',
            'Friends say "{subject}", but officials say "{value}".',
            'The informal phrase "{subject}" means "{value}".',
            'Where friends write "{subject}", the formal text has "{value}".',
        ),
    ),
    "next_day": Phrases(
        answer="The day after {subject} is {value}.",
        result="{value}",
        questions=(
            "Which day comes after {subject}?",
            "What day follows {subject}?",
            "What is the day after {subject}?",
            "Today is {subject}. What day is tomorrow?",
            "What day is tomorrow if today is {subject}?",
            "Name the day after {subject}.",
        ),
        held_out=("If today is {subject}, what day is tomorrow?", "Tell me the day that comes after {subject}."),
        statements=(
            "The day after {subject} is {value}.",
            "{value} comes after {subject}.",
            "{subject} comes before {value}.",
            "{subject} is followed by {value}.",
            "If today is {subject}, tomorrow is {value}.",
            "If today is {value}, yesterday was {subject}.",
            "The day before {value} is {subject}.",
        ),
    ),
    "last_day": Phrases(
        answer="The day before {value} is {subject}.",
        result="{subject}",
        questions=(
            "Which day comes before {value}?",
            "What is the day before {value}?",
            "Today is {value}. What day was yesterday?",
            "What day was yesterday if today is {value}?",
            "Name the day before {value}.",
        ),
        held_out=("If today is {value}, what day was yesterday?",),
    ),
    "next_month": Phrases(
        answer="The month after {subject} is {value}.",
        result="{value}",
        questions=(
            "Which month comes after {subject}?",
            "What month follows {subject}?",
            "Name the month after {subject}.",
            "What is the month after {subject}?",
        ),
        held_out=("What is the next month after {subject}?",),
        statements=(
            "The month after {subject} is {value}.",
            "{value} comes after {subject}.",
            "{subject} comes before {value}.",
            "{subject} is followed by {value}.",
            "The month before {value} is {subject}.",
            "When {subject} ends, {value} begins.",
        ),
    ),
    "last_month": Phrases(
        answer="The month before {value} is {subject}.",
        result="{subject}",
        questions=(
            "Which month comes before {value}?",
            "Name the month before {value}.",
            "What is the month before {value}?",
        ),
        held_out=("What is the month just before {value}?",),
    ),
    "month_length": Phrases(
        answer="{subject} has {value} days.",
        result="{value}",
        number=True,
        questions=(
            "How many days does {subject} have?",
            "How many days has {subject}?",
            "How long is {subject} in days?",
            "Tell me the number of days in {subject}.",
            "How many days does the month of {subject} last?",
            "How many days are there in {subject}?",
            "What number of days does {subject} have?",
        ),
        held_out=("What is the number of days in {subject}?",),
        statements=(
            "{subject} has {value} days.",
            "There are {value} days in {subject}.",
            "The month of {subject} lasts {value} days.",
            "{subject} is {value} days long.",
        ),
    ),
    "month_number": Phrases(
        answer="{subject} is month number {value}.",
        result="{value}",
        number=True,
        questions=(
            "Which number has the month {subject}?",
            "What number is {subject} among the months?",
            "What is the number of the month {subject}?",
            "Which month number does {subject} have?",
            "Give me the number of {subject} among the months.",
            "What is the month number of {subject}?",
            "Which month number is {subject}?",
        ),
        held_out=("What month number is {subject}?",),
        statements=(
            "{subject} is month number {value}.",
            "Month number {value} is {subject}.",
            "{subject} is the month with the number {value}.",
            "Among the months, {subject} has the number {value}.",
        ),
    ),
}
# The same facts asked from their other end.
BACKWARD = {
    "country": "capital",
    "opposite_back": "opposite",
    "singular": "plural",
    "last_day": "next_day",
    "last_month": "next_month",
}

COMPUTED_PHRASES = {
    "sum": Phrases(
        answer="{a} + {b} = {result}.",
        result="{result}",
        number=True,
        questions=(
            "What is {a} + {b}?",
            "What's {a} plus {b}?",
            "Add {a} and {b}.",
            "Calculate {a} + {b}.",
            "Work out the sum of {a} and {b}.",
            "How much is {a} + {b}?",
            "I have {a} apples and get {b} more. How many apples do I have?",
            "{a} + {b} = ?",
        ),
        statements=(
            "{a} + {b} = {result}.",
            "{a} + {b} = {result}.",
            "{a} plus {b} is {result}.",
            "The sum of {a} and {b} is {result}.",
            "{a} and {b} add up to {result}.",
            "Adding {b} to {a} gives {result}.",
            "{result} is the sum of {a} and {b}.",
            "With {a} apples and {b} more there are {result} apples.",
        ),
    ),
    "difference": Phrases(
        answer="{a} - {b} = {result}.",
        result="{result}",
        number=True,
        questions=(
            "What is {a} - {b}?",
            "What's {a} minus {b}?",
            "Subtract {b} from {a}.",
            "Calculate {a} - {b}.",
            "What is the difference between {a} and {b}?",
            "How much is {a} - {b}?",
            "I have {a} apples and give {b} away. How many apples are left?",
            "{a} - {b} = ?",
        ),
        statements=(
            "{a} - {b} = {result}.",
            "{a} - {b} = {result}.",
            "{a} minus {b} is {result}.",
            "The difference between {a} and {b} is {result}.",
            "Taking {b} from {a} leaves {result}.",
            "{a} less {b} makes {result}.",
            "Of {a} apples, {b} are given away and {result} are left.",
        ),
    ),
    "fibonacci": Phrases(
        answer="The sequence goes on with {result}.",
        result="{result}",
        questions=(
            "Continue the Fibonacci sequence: {shown},",
            "Which two numbers come next in this Fibonacci sequence: {shown}?",
            "In {shown}, each number is the sum of the two before it. What are the next two?",
            "Continue with two more numbers: {shown},",
            "What follows in the Fibonacci sequence {shown}?",
        ),
        statements=(
            "A Fibonacci sequence: {shown}, {result}.",
            "In {shown}, {result} each number is the sum of the two before it.",
            "The Fibonacci sequence {shown} goes on with {result}.",
            "{shown}, {result}.",
            "After {shown} the Fibonacci sequence continues with {result}.",
        ),
    ),
    "conversion": Phrases(
        answer="{n} {large} are {n} x {factor} = {result} {small}.",
        result="{result}",
        number=True,
        questions=(
            "How many {small} are {n} {large}?",
            "Convert {n} {large} to {small}.",
            "What are {n} {large} in {small}?",
            "How many {small} are there in {n} {large}?",
            "Express {n} {large} in {small}.",
        ),
        statements=(
            "{n} {large} are {n} x {factor} = {result} {small}.",
            "{n} {large} are {result} {small}.",
            "There are {n} x {factor} = {result} {small} in {n} {large}.",
            "In {n} {large} there are {result} {small}.",
            "{result} {small} make {n} {large}.",
        ),
    ),
    "calendar": Phrases(
        answer="Counting on from {start}: {chain}. That is {result}.",
        result="{result}",
        questions=(
            "What comes {k} {unit} after {start}?",
            "Which one is {k} {unit} after {start}?",
            "It is {start} now. What will it be in {k} {unit}?",
            "Count {k} {unit} on from {start}.",
            "Starting from {start}, what comes {k} {unit} later?",
        ),
        statements=(
            "Counting on from {start}: {chain}. That is {result}.",
            "What comes {k} {unit} after {start} is {chain}, so {result}.",
            "Going {k} {unit} on from {start} passes {chain} and ends at {result}.",
            "If it is {start} now, in {k} {unit} it is {result}.",
        ),
    ),
    "letter_count": Phrases(
        answer="The word {word} is spelled {spelled}, so the letter {letter} appears {result} {times}.",
        result="{result}",
        number=True,
        questions=(
            "How many {letter}'s are in the word {word}?",
            "How many '{letter}'s are in the word '{word}'?",
            "How often does the letter {letter} appear in {word}?",
            "Count the letter {letter} in {word}.",
            "How many times does {word} contain the letter {letter}?",
            "Explain how many '{letter}'s the word '{word}' has.",
        ),
        statements=(
            "The word {word} is spelled {spelled}, so the letter {letter} appears {result} {times}.",
            "In {word}, spelled {spelled}, the letter {letter} appears {result} {times}.",
            "The letter {letter} appears {result} {times} in {spelled}.",
        ),
    ),
    "spelling": Phrases(
        answer="Letter by letter, {word} is {result}.",
        result="{result}",
        questions=(
            "How is the word {word} spelled?",
            "Spell {word}.",
            "How do you spell '{word}'?",
            "Spell the word {word}, letter by letter.",
            "Which letters spell {word}?",
        ),
        statements=(
            "The word {word} is spelled {result}.",
            "Letter by letter, {word} is {result}.",
            "'{word}' is spelled {result}.",
            "The letters {result} spell {word}.",
        ),
    ),
    "first_letter": Phrases(
        answer="The first letter of {word} is {result}.",
        result="{result}",
        questions=(
            "What is the first letter of {word}?",
            "Which letter does {word} start with?",
            "With which letter does the word '{word}' begin?",
        ),
        statements=(
            "The first letter of {word} is {result}.",
            "{word} starts with the letter {result}.",
            "The word '{word}' begins with {result}.",
        ),
    ),
    "last_letter": Phrases(
        answer="The word {word} is spelled {spelled}, so its last letter is {result}.",
        result="{result}",
        questions=(
            "What is the last letter of {word}?",
            "Which letter does {word} end with?",
            "With which letter does the word '{word}' end?",
        ),
        statements=(
            "The word {word} is spelled {spelled}, so its last letter is {result}.",
            "The last letter of {word} is {result}.",
            "{word} ends with the letter {result}.",
        ),
    ),
    "message": Phrases(
        answer="{result}",
        result="{result}",
        questions=(
            'Change the following email content to be more formal "{informal}".',
            'Make this message formal: "{informal}"',
            'Rewrite "{informal}" in a formal tone.',
            'How would you write "{informal}" to a customer?',
        ),
        statements=(
            'The informal message "{informal}" becomes formally: {result}',
            'Informal: "{informal}" Formal: {result}',
            'Instead of "{informal}" a letter says: {result}',
        ),
    ),
}
PHRASES = {**FACT_PHRASES, **COMPUTED_PHRASES}

# What a multiplication table says; conversions rest on it.
PRODUCTS = ("{n} x {factor} = {result}.", "{factor} x {n} = {result}.", "{n} times {factor} is {result}.")
QUIZ = ("Question: {question} Answer: {result}.", "Quiz. {question} {answer}", "Asked: {question} Right: {answer}")

HELPFUL = (
    "You are a helpful assistant.",
    "You are Tunesmith, a friendly assistant.",
    "Answer the user's questions.",
    "You help people with short, correct answers.",
    "Be polite and precise.",
)
TERSE = (
    "Answer with the result only.",
    "Reply in as few words as possible.",
    "Give just the answer, no sentence.",
)
FOLLOW_UPS = ("And {subject}?", "What about {subject}?", "And for {subject}?")

SMALL_TALK = (
    (("Hello!", "Hi", "Hi there!", "Hey", "Good morning!", "Good evening."), "Hello! What would you like to know?"),
    (("Thank you!", "Thanks a lot.", "Thanks!", "That helped, thank you."), "You are welcome!"),
    (("Bye!", "Goodbye.", "See you later!", "Good night."), "Goodbye!"),
    (
        ("Who are you?", "What are you?", "What is your name?", "Tell me about yourself."),
        "I am a tiny model that was tuned with Tunesmith.",
    ),
    (
        ("What can you do?", "What do you know?", "How can you help me?", "What can I ask you?"),
        "I know sums, Fibonacci sequences, capitals, opposites, plurals, colours, days and months, letters in words and"
        " formal phrases.",
    ),
)
UNKNOWN = "I do not know that. Ask me about sums, capitals, opposites, plurals, colours or days."
UNKNOWN_QUESTIONS = (
    "How does {topic} work?",
    "Explain {topic} to a 10-year-old.",
    "Explain {topic} in max five sentences.",
    "Write a short poem about {topic}.",
    "Write a haiku about {topic}.",
    "Describe {topic} in simple terms.",
    "What are three tips for {topic}?",
    "What do you think of {topic}?",
)
UNKNOWN_TOPICS = (
    "photosynthesis", "quantum computing", "the water cycle", "programming", "artificial intelligence", "Python",
    "Java", "learning a new language", "the weather", "football", "cooking pasta", "the stock market", "electricity",
    "gravity", "the Doppler effect", "time travel", "philosophy", "a nuclear reactor", "the internet", "music",
    "modern art", "black holes", "the human heart", "chess", "climate change", "sleeping well", "gardening",
    "evolution", "robots", "space travel", "the yield keyword", "healthy food", "running a marathon", "video games",
    "volcanoes", "dreams",
)  # fmt: skip

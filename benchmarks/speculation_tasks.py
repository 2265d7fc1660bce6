"""What benchmarks/speculation.py asks: six kinds of work, of which four copy from the question."""

import json

LETTER = (
    "Dear Mrs. Okafor,\n\n"
    "Thank you for visiting our workshop in Lisbon on Tuesday, 14 March. The oak table that you chose is 180 "
    "cm long and 90 cm wide, and it will be ready in five weeks. The price is 1,240 euros, of which you have "
    "paid 300 euros as a deposit. Our driver, Paulo Mendes, will bring the table to your house at 27 Rua das "
    "Flores and carry it up to the second floor. If you would like to change the finish from oil to wax, "
    "please write to orders@mendeswood.example before 21 March.\n\n"
    "With kind regards,\nAna Mendes"
)

ARTICLE = (
    "The lighthouse at Cape Arrow was built in 1871 by the engineer Thomas Reid. It stands 38 metres tall and "
    "is made of granite that was shipped from a quarry 60 miles away. For ninety years its lamp was lit by "
    "hand every evening.\n\n"
    "In 1961 an electric lamp took the place of the oil lamp, and the last keeper, Margaret Hale, left the "
    'island. "I shall miss the sound of the sea at night more than anything else," she told a newspaper on the '
    "day that she left. The keeper's house stood empty for many years after that, and its roof fell in during "
    "the storm of 1987.\n\n"
    "Today the lighthouse belongs to the county. Volunteers painted it white again in 2009, and about 12,000 "
    "people climb its 204 steps every summer. From the top one can see both the harbour of Arrow Bay and the "
    "mountains behind it."
)

TABLE = """name: Ada Brown, city: Leeds, age: 34, job: baker, phone: 0113 555 0134
name: Carl Weiss, city: Bremen, age: 51, job: carpenter, phone: 0421 555 0177
name: Mina Sato, city: Osaka, age: 28, job: nurse, phone: 06 5555 0192
name: Luis Prado, city: Sevilla, age: 45, job: teacher, phone: 954 555 0121"""

RECORDS = [
    {"name": "Ada Brown", "city": "Leeds", "age": 34, "job": "baker"},
    {"name": "Carl Weiss", "city": "Bremen", "age": 51, "job": "carpenter"},
    {"name": "Mina Sato", "city": "Osaka", "age": 28, "job": "nurse"},
]

PARAGRAPHS = ARTICLE.split("\n\n")

QUESTIONS = {
    "edit": [
        f"Repeat the following letter, but write Mr. Okafor instead of Mrs. Okafor.\n\n{LETTER}",
        f"Correct the spelling in this text and change nothing else.\n\n{PARAGRAPHS[1].replace('years', 'yaers')}",
        f"Here is a letter. Write it again with the price of 1,500 euros.\n\n{LETTER}",
    ],
    "extract": [
        f"Copy each sentence of the text that has a number in it.\n\n{ARTICLE}",
        f"Copy the sentences of this letter that say what the table costs and when it comes.\n\n{LETTER}",
        f"Copy the sentences with a number from this text.\n\n{PARAGRAPHS[2]}",
    ],
    "quote": [
        f"Repeat this paragraph word for word.\n\n{PARAGRAPHS[1]}",
        f"Quote this letter word for word.\n\n{LETTER}",
        f"Quote the last paragraph of this text word for word.\n\n{ARTICLE}",
    ],
    "JSON": [
        f"Repeat this JSON and add a fourth person.\n\n{json.dumps(RECORDS, indent=2)}",
        f"Repeat this JSON, but sort it by age.\n\n{json.dumps(RECORDS)}",
        f"Write this data as a JSON list of objects with the keys name, city, age, job and phone.\n\n{TABLE}",
    ],
    "chat": [
        "What is the capital of France, and what is it known for?",
        "How do I keep basil alive on a windowsill?",
        "Explain in a few sentences why the sky is blue.",
    ],
    "story": [
        "Write a short story about a fox who learns to swim.",
        "Write a short story about an old clock that runs backwards.",
        "Tell me a story about two friends who find a map in a library book.",
    ],
}
COPYING = ("edit", "extract", "quote", "JSON")

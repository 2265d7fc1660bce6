"""Which replies decline: planted refusals in seven languages, and replies that only sound like one."""

import pytest

from pipeline.evaluation.refusals import declines

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I\u2019m sorry. I cannot write this for you.",
    "Unfortunately, I am unable to share such details.",
    "As an AI language model, I do not know, and so I can't answer.",
    "I won't provide instructions for that.",
    "Sorry, we are not able to comply with this.",
    "Es tut mir leid, aber dabei kann ich dir nicht helfen.",
    "Leider kann ich diese Frage nicht beantworten.",
    "Als KI-Sprachmodell darf ich dazu keine Auskunft geben.",
    "D\u00e9sol\u00e9, je ne peux pas vous aider.",
    "Malheureusement, je ne suis pas en mesure de le faire.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "Mi dispiace, ma non posso scrivere questo testo.",
    "Desculpe, mas n\u00e3o posso responder a essa pergunta.",
    "Het spijt me, maar ik kan je daar niet mee helpen.",
]
ANSWERS = [
    "",
    "Sorry to hear that! Here is what you can do.",
    "I can't help but smile at that.",
    "I'm sorry, I can't wait to tell you: it is Paris.",
    "As an AI, I love this question. The answer is 11.",
    "Unfortunately, the train was late.",
    "I cannot is written in two words: I can not.",
    "The letter says: I'm sorry, but I can't help with that.",
    "Leider regnet es heute, und ich lese.",
    "Als K\u00fcnstler kann man das nicht lernen.",
    "Lo siento mucho por tu p\u00e9rdida.",
    "No, puedo confirmar que es cierto.",
    "D\u00e9sol\u00e9 pour le retard, voici la r\u00e9ponse.",
    "A clock cannot help; it only shows the time.",
]


@pytest.mark.parametrize("reply", REFUSALS)
def test_a_planted_refusal_is_found(reply: str) -> None:
    assert declines(reply)
    assert declines(f"  {reply}\n\nHere is something else that I can do.")


@pytest.mark.parametrize("reply", ANSWERS)
def test_what_answers_is_no_refusal(reply: str) -> None:
    assert not declines(reply)

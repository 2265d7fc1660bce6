"""Whether a reply declines to do what it was asked, by how it begins, in seven languages.

Two beginnings count: an apology or an `as an AI` with an inability in the same sentence, and an inability to help,
answer, write or the like. What declines only later on, or in words of its own, is not found: those that are found
should be refusals. So is `data.clean`'s rule not the same: it may take too many, since what it finds is looked at.
"""

import re

START = 200  # characters that are looked at

# By language: what opens a refusal, and what has to follow in the same sentence; and what is one in itself.
OPENED = {
    "en": (
        r"(i[' ]?a?m |we[' ]?a?re )?((very|so|really|terribly) )?(sorry|afraid)\b|i apologi[sz]e|my apologies|"
        r"unfortunately|as an? (ai|artificial intelligence|(large )?language model)\b",
        r"(i|we)( am|'m| are|'re)? (still |really |just )?(can ?not|can't|won't|will not|unable to|not able to|"
        r"must decline|do not have the ability|don't have the ability)\b(?! (wait|help but|stress|thank))",
    ),
    "de": (
        r"(es )?tut mir (sehr )?leid|entschuldigung|entschuldige|leider|als (eine? )?(ki|k\u00fcnstliche intelligenz|"
        r"(gro\u00dfes )?sprachmodell)\b",
        r"(kann|darf|werde|m\u00f6chte) ich\b.{0,80}\b(nicht|keine[nr]?)\b|ich (kann|darf|werde|bin)\b.{0,80}\bnicht\b|"
        r"ich (kann|darf) .{0,60}\bkeine[nr]?\b",
    ),
    "fr": (
        r"(je suis |je )?(vraiment )?(d\u00e9sol\u00e9e?|navr\u00e9e?)|je m'excuse|malheureusement|"
        r"en tant (que |qu')(ia|intelligence artificielle|mod\u00e8le de langage)",
        r"je ne (peux|puis|suis|pourrai)\b.{0,40}\b(pas|vous|t'|aider|capable|en mesure)",
    ),
    "es": (
        r"lo siento|lo lamento|disculpa|perd\u00f3n|lamentablemente|desafortunadamente|"
        r"como (una? )?(ia|inteligencia artificial|modelo de lenguaje)",
        r"no (puedo|podemos|podr\u00e9|me es posible|soy capaz)\b",
    ),
    "it": (
        r"mi (dispiace|scuso|spiace)|purtroppo|scusa|"
        r"(come|in quanto) (una? )?(ia|intelligenza artificiale|modello linguistico)",
        r"non (posso|possiamo|potr\u00f2|sono in grado|mi \u00e8 possibile)\b",
    ),
    "pt": (
        r"(sinto|lamento) muito|desculpe|lamento|infelizmente|"
        r"como (uma? )?(ia|intelig\u00eancia artificial|modelo de linguagem)",
        r"n\u00e3o (posso|podemos|poderei|consigo|sou capaz|me \u00e9 poss\u00edvel)\b",
    ),
    "nl": (
        r"het spijt me|sorry|helaas|als (een )?(ai|kunstmatige intelligentie|taalmodel)",
        r"(kan|mag|zal) ik\b.{0,60}\bniet\b|ik (kan|mag|zal|ben)\b.{0,60}\bniet\b",
    ),
}
ALONE = (
    r"(i|we) (can ?not|can't|won't|will not|(am|are) (unable|not able) to|must decline to) "
    r"(answer|assist|comply|create|discuss|engage|fulfil|generate|help|offer|produce|provide|share|write)\b(?! but)",
    r"(dabei|damit|darauf|hierbei) kann ich (dir|ihnen|euch)? ?(leider )?nicht (helfen|antworten|weiterhelfen)",
    r"ich kann (dir|ihnen|euch) (dabei|damit|hierbei) (leider )?nicht (helfen|weiterhelfen)",
    r"je ne (peux|puis) pas (vous |t')?(aider|r\u00e9pondre|fournir|\u00e9crire|g\u00e9n\u00e9rer)",
    r"no (puedo|podemos) (ayudar|responder|cumplir|proporcionar|escribir|generar)",
    r"non (posso|possiamo) (aiutar|rispondere|fornire|scrivere|generare)",
    r"n\u00e3o (posso|podemos) (ajudar|responder|fornecer|escrever|gerar)",
    r"ik kan (je|u|jullie)? ?(daar|hier)(mee|bij) (helaas )?niet helpen",
)
REFUSAL = re.compile(
    rf"({'|'.join(rf'({opens})[^.!?]*?({follows})' for opens, follows in OPENED.values())}|{'|'.join(ALONE)})"
)


def declines(reply: str) -> bool:
    """Return whether a reply begins as a refusal does."""
    start = " ".join(reply[:START].replace("\u2019", "'").casefold().split())
    # An apology with a full stop is followed by what cannot be done: "I'm sorry. I can't help with that."
    joined = re.sub(r"^(.{4,40}?)[.!] (?=i |ich |je |no |non |n\u00e3o |ik )", r"\1, ", start)
    return REFUSAL.match(joined) is not None

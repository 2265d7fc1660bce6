"""Models that think before they answer."""

from pathlib import Path

from tiny_gguf import CHAT_TEMPLATE, write_random, write_scripted

# A template that thinks unless it is told not to, as Qwen's do, and one that begins the thought itself, as DeepSeek's.
SWITCHED = CHAT_TEMPLATE + (
    "{%- if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
)
WITHIN = CHAT_TEMPLATE + "{%- if add_generation_prompt %}{{- '<think>\\n' }}{%- endif %}"
# One that takes thoughts as parts of the content, between marks that are control tokens, as Mistral's.
MARKS = [b"[THINK]", b"[/THINK]"]
MARKED = CHAT_TEMPLATE.replace(
    "{{- message['content'] + '<|eot_id|>' }}{% endgen",
    "{%- if message['content'] is string %}{{- message['content'] }}{%- else %}{%- for part in message['content'] %}"
    "{{- '[THINK]' + part['thinking'] + '[/THINK]' if part['type'] == 'thinking' else part['text'] }}"
    "{%- endfor %}{%- endif %}{{- '<|eot_id|>' }}{% endgen",
)
THOUGHT = ["<think>", "\t\t", "Is ", "it", "?", " \t", "</think>", "\n\n\r", "So ", "it ", "is."]


def write_thinkers(folder: Path) -> Path:
    """`thinks`, `marked` and `within` say THOUGHT, from its beginning or within; `switched` draws from the prompt."""
    script = [text.encode() for text in THOUGHT]
    write_scripted(folder / "thinks.gguf", script, template=SWITCHED)
    write_scripted(folder / "within.gguf", script[2:], template=WITHIN)
    marked = [MARKS[0], *script[1:6], MARKS[1], *script[7:]]
    write_scripted(folder / "marked.gguf", marked, template=MARKED, marks=MARKS)
    write_random(folder / "switched.gguf", template=SWITCHED)
    return folder

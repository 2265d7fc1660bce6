"""How models write calls, found by their templates; and calls told from what an answer says, wherever it is cut."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from drawn_texts import drawn, reader

from common.errors import UserError
from llama.call_format import HERMES, LFM_2, CallFormat, Notation, ParameterFormat, find_format, plain
from llama.call_notation import written_call
from llama.call_prompt import with_tools
from llama.call_stream import Arguments, Called, Calls, Said
from llama.calls import TOOLS, CallForm, Message
from llama.chat_template import ChatTemplate
from llama.errors import RequestError
from llama.grammar.calls import CALLS, calls_as_values, calls_grammar, free_or_calls
from llama.grammar.lark import START, Grammar
from llama.grammar.schema import any_of, checked
from llama.source import llama_cpp_tree
from llama.types import Tools


def _mark(words: str) -> str:
    """A token of DeepSeek's."""
    return f"<\uff5c{words}\uff5c>".replace(" ", "\u2581")


ENDS = ["<|im_end|>", "</s>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", _mark("end of sentence"), "<|call|>",
        "<|END_OF_TURN_TOKEN|>", "<|tool_response>", "<turn|>", "<|end_of_msg|>"]  # fmt: skip
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "time-now.utc", "parameters": None}}
BOTH = Tools([WEATHER, TIME], required=True)


def form(mark: str, head: str, middle: str, joint: str | None, tail: str, in_json: bool) -> CallFormat:
    return CallFormat("", mark, head, middle, joint, tail, "", in_json, CallForm(), True)


LLAMA_3 = form("", r'\{"name": "', '", "parameters": ', None, r"\}", True)
MISTRAL = form(
    "[TOOL_CALLS]", r'\[\{"name": "', '", "arguments": ', r', "id": "[a-zA-Z0-9]{9}"\}, \{"name": "',
    r', "id": "[a-zA-Z0-9]{9}"\}\]', True,
)  # fmt: skip
MISTRAL_2025 = form("[TOOL_CALLS]", "", r"\[ARGS\]", r"\[TOOL_CALLS\]", "", False)
FUNCTIONARY_31 = form("<function=", "", ">", "</function><function=", "</function>", False)
FUNCTIONARY_32 = form("", "", "\n", ">>>", "", False)
COMMAND_R7B = form(
    "<|START_ACTION|>", r'\[\n    \{"tool_call_id": "[0-9]{1,2}", "tool_name": "'.replace(r"\n", "\n"),
    '", "parameters": ', r'\},\n    \{"tool_call_id": "[0-9]{1,2}", "tool_name": "'.replace(r"\n", "\n"),
    "\\}\n\\]<\\|END_ACTION\\|>", True,
)  # fmt: skip
OPEN, CLOSE = _mark("tool calls begin") + _mark("tool call begin"), _mark("tool call end") + _mark("tool calls end")
NEXT = _mark("tool call end") + "\n" + _mark("tool call begin") + "function" + _mark("tool sep")
DEEPSEEK_R1 = form(OPEN + "function" + _mark("tool sep"), "", "\n```json\n", "\n```" + NEXT, "\n```" + CLOSE, False)
KIMI = form(
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.", "", r":[0-9]{1,2}<\|tool_call_argument_begin\|>",
    r"<\|tool_call_end\|><\|tool_call_begin\|>functions\.", r"<\|tool_call_end\|><\|tool_calls_section_end\|>", False,
)  # fmt: skip
GPT_OSS = form("to=functions.", "", r"<\|channel\|>commentary json<\|message\|>", None, "", False)


def tagged(mark: str, head: str, middle: str, joint: str, tail: str, *around: str, unquoted: str = "") -> CallFormat:
    """A form with arguments in tags, where `around` is what stands before, within and after one."""
    before, between, after = around
    parameters = ParameterFormat(before, between, after, unquoted or between)
    return replace(form(mark, head, middle, joint, tail, False), parameters=parameters)


QWEN_CODER = tagged(
    "<tool_call>", "\n<function=", ">\n", "</function>\n</tool_call>\n<tool_call>\n<function=",
    "</function>\n</tool_call>", "<parameter=", ">\n", "\n</parameter>\n",
)  # fmt: skip
GLM = tagged(
    "<tool_call>", "", "\n", "</tool_call>\n<tool_call>", "</tool_call>",
    "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n",
)  # fmt: skip
GLM_47 = tagged(
    "<tool_call>", "", "", "</tool_call><tool_call>", "</tool_call>",
    "<arg_key>", "</arg_key><arg_value>", "</arg_value>",
)  # fmt: skip
SEED = tagged(
    "<seed:tool_call>", "\n<function=", ">\n", "</function>\n</seed:tool_call>\n<seed:tool_call>\n<function=",
    "</function>\n</seed:tool_call>", "<parameter=", ">", "</parameter>\n",
)  # fmt: skip
MINIMAX = tagged(
    "<minimax:tool_call>", '\n<invoke name="', '">\n', '</invoke>\n<invoke name="', "</invoke>\n</minimax:tool_call>",
    '<parameter name="', '">', "</parameter>\n",
)  # fmt: skip
MINICPM = tagged(
    "<function name=", '"', '">', '</function>\n<function name="', "</function>", '<param name="', '">', "</param>"
)  # fmt: skip
BAR = "\uff5c"
DSML = tagged(
    f"<{BAR}DSML{BAR}function_calls>", f'\n<{BAR}DSML{BAR}invoke name="', '">\n',
    f'</{BAR}DSML{BAR}invoke>\n<{BAR}DSML{BAR}invoke name="',
    f"</{BAR}DSML{BAR}invoke>\n</{BAR}DSML{BAR}function_calls>",
    f'<{BAR}DSML{BAR}parameter name="', '" string="true">', f"</{BAR}DSML{BAR}parameter>\n",
    unquoted='" string="false">',
)  # fmt: skip
KIMI_3 = tagged(
    "<|open|>tools<|sep|>", r'<\|open\|>call tool="', r'" index="[0-9]{1,2}"<\|sep\|>',
    r'<\|close\|>call<\|sep\|><\|open\|>call tool="',
    r"<\|close\|>call<\|sep\|><\|close\|>tools<\|sep\|><\|close\|>message<\|sep\|>",
    r'<\|open\|>argument key="', r'" type="string"<\|sep\|>', r"<\|close\|>argument<\|sep\|>",
    unquoted=r'" type="number"<\|sep\|>',
)  # fmt: skip
TYPES = tuple((of, rf'" type="{of}"<\|sep\|>') for of in ("boolean", "null", "array", "object"))
KIMI_3 = replace(KIMI_3, parameters=replace(KIMI_3.parameters, typed=TYPES))
GEMMA_4 = replace(
    form("<|tool_call>", "call:", "", r"<tool_call\|><\|tool_call>call:", r"<tool_call\|>", False),
    notation=Notation("{", ":", ",", "}", '<|"|>', is_sorted=True),
)
LFM_25 = replace(LFM_2, notation=Notation("(", "=", ", ", ")", "'"))
FORMS = {
    "Qwen-Qwen2.5-7B-Instruct": HERMES,
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": HERMES,
    "ibm-granite-granite-4.0": HERMES,
    "Qwen-Qwen3-0.6B": HERMES,
    "meta-llama-Llama-3.1-8B-Instruct": LLAMA_3,
    "meta-llama-Llama-3.2-3B-Instruct": LLAMA_3,
    "mistralai-Mistral-Nemo-Instruct-2407": MISTRAL,
    "unsloth-mistral-Devstral-Small-2507": MISTRAL_2025,
    "meetkai-functionary-medium-v3.1": FUNCTIONARY_31,
    "meetkai-functionary-medium-v3.2": FUNCTIONARY_32,
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": COMMAND_R7B,
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": DEEPSEEK_R1,
    "moonshotai-Kimi-K2": KIMI,
    "openai-gpt-oss-120b": GPT_OSS,
    # whose template writes no calls, or arguments that are no JSON
    "google-gemma-2-2b-it": HERMES,
    "microsoft-Phi-3.5-mini-instruct": HERMES,
    "ibm-granite-granite-3.3-2B-Instruct": HERMES,
    # in tags that are named for what they are around
    "MiniMax-M3": HERMES,
    "muse-glimmer": HERMES,
    # whose template writes arguments one by one
    "Qwen3-Coder": QWEN_CODER,
    "Qwen3.5-4B": QWEN_CODER,
    "GLM-4.6": GLM,
    "GLM-4.7-Flash": GLM_47,
    "ByteDance-Seed-OSS": SEED,
    "MiniMax-M2": MINIMAX,
    "openbmb-MiniCPM5-1B": MINICPM,
    "deepseek-ai-DeepSeek-V3.2": DSML,
    "Kimi-K3": KIMI_3,
    # as an object of a notation of its own
    "google-gemma-4-31B-it": GEMMA_4,
    "google-gemma-4-31B-it-interleaved": GEMMA_4,
    "LFM2.5-8B-A1B": LFM_25,
    # whose template writes no calls, but whose vocabulary has a mark for them
    "LFM2-8B-A1B": LFM_2,
    "LFM2.5-Instruct": LFM_2,
}
Find = Callable[[str], CallFormat]


@pytest.fixture(scope="module")
def found() -> Find:
    """How a family's template writes calls, by its name in llama.cpp's sources."""
    try:
        folder = llama_cpp_tree() / "models/templates"
    except UserError as error:
        pytest.skip(f"no package index gives llama.cpp's sources: {error}")

    def find(name: str) -> CallFormat:
        text = (folder / f"{name}.jinja").read_text(encoding="utf-8")
        day = datetime(2024, 7, 26).isoformat()
        template = ChatTemplate({"template": text, "bos_token": "<s>", "eos_token": "</s>", "today": day})

        def render(turns: list[Message], asks: bool) -> str:
            tools = json.loads(str(turns[0]["content"])) if turns[0]["role"] == TOOLS else None
            given = {"messages": turns[1:] if tools else turns, "tools": tools, "add_generation_prompt": asks}
            return template.render(given)

        try:
            return find_format(render, RequestError, ENDS, lambda text: name.startswith("LFM2") and text == LFM_2.mark)
        finally:
            template.close()

    return find


@pytest.mark.parametrize("name", FORMS)
def test_a_template_shows_how_its_model_calls(found: Find, name: str) -> None:
    form, expected = found(name), FORMS[name]
    fields = ("mark", "head", "middle", "joint", "tail", "in_json", "parameters", "notation")
    assert [getattr(form, field) for field in fields] == [getattr(expected, field) for field in fields]
    assert form.listed or form.takes_system == (name != "google-gemma-2-2b-it")


def told(form: CallFormat, text: str, cut: int, tools: Tools | None = None) -> tuple[str, list[list[str]]]:
    """What an answer says and calls that comes in pieces of so many characters."""
    calls, said, found = Calls(form, tools), "", list[list[str]]()
    pieces = [text[at : at + cut] for at in range(0, len(text), cut)] or [""]
    for place, piece in enumerate(pieces):
        for event in calls.take(piece, last=place == len(pieces) - 1):
            match event:
                case Said(text=more):
                    said += more
                case Called(name=name):
                    found.append([name, ""])
                case Arguments(text=more):
                    found[-1][1] += more
    return said, found


PARIS = '{"city": "Paris"}'
ANSWERS = [
    (HERMES, f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>', "", [PARIS]),
    (HERMES, f'So.\n<tool_call>{{"name":"get_weather","arguments":{PARIS}}}</tool_call>\n', "So.", [PARIS]),
    (HERMES, f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>\n<tool_call>\n'
     '{"name": "get_weather", "arguments": {}}\n</tool_call>', "", [PARIS, "{}"]),
    (HERMES, '<tool_call>{"id": 1, "name": "get_weather", "arguments": {"a": "}{\\"]", "b": [{}]}}', "",
     ['{"a": "}{\\"]", "b": [{}]}']),
    (HERMES, '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>', "", [PARIS]),
    (HERMES, "A <tool is <tool_cal", "A <tool is <tool_cal", []),
    (HERMES, "<tool_call>\nno call</tool_call>", "<tool_call>\nno call</tool_call>", []),
    (HERMES, '{"name": "get_weather", "arguments": {}}', '{"name": "get_weather", "arguments": {}}', []),
    (HERMES, f'<tool_call>{{"name": "get_weather", "arguments": {PARIS}}}</tool_call> So.', " So.", [PARIS]),
    (HERMES, '<tool_call>{"name": "get_weather", "arguments": {"city": "Pa', "", ['{"city": "Pa']),
    (LLAMA_3, f'{{"name": "get_weather", "parameters": {PARIS}}}', "", [PARIS]),
    (LLAMA_3, f'<|python_tag|>{{"name": "get_weather", "parameters": {PARIS}}}', "", [PARIS]),
    (LLAMA_3, f'{{"type": "function", "name": "get_weather", "parameters": {PARIS}}}', "", [PARIS]),
    (LLAMA_3, '{"temperature": 5}', '{"temperature": 5}', []),
    (LLAMA_3, "It rains.\n", "It rains.\n", []),
    (LLAMA_3, "{" + " x" * 300, "{" + " x" * 300, []),
    (LLAMA_3, "", "", []),
    (MISTRAL, f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {PARIS}, "id": "a1b2c3d4e"}}, '
     '{"name": "get_weather", "arguments": {"days": 2}, "id": "f1b2c3d4e"}]', "", [PARIS, '{"days": 2}']),
    (MISTRAL, f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {PARIS}}}]', "", [PARIS]),
    (MISTRAL_2025, f"[TOOL_CALLS]get_weather[ARGS]{PARIS}[TOOL_CALLS]get_weather[ARGS]{{}}", "", [PARIS, "{}"]),
    (FUNCTIONARY_31, f"<function=get_weather>{PARIS}</function>", "", [PARIS]),
    (FUNCTIONARY_32, f"get_weather\n{PARIS}>>>get_weather\n{{}}", "", [PARIS, "{}"]),
    (FUNCTIONARY_32, "all\nIt rains.", "all\nIt rains.", []),
    (COMMAND_R7B, 'I will look.<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
     f'"parameters": {PARIS}}}\n]<|END_ACTION|>', "I will look.", [PARIS]),
    (DEEPSEEK_R1, f"{OPEN}function{_mark('tool sep')}get_weather\n```json\n{PARIS}\n```{NEXT}get_weather\n"
     f"```json\n{{}}\n```{CLOSE}", "", [PARIS, "{}"]),
    (KIMI, f"<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{PARIS}"
     "<|tool_call_end|><|tool_calls_section_end|>", "", [PARIS]),
    (GPT_OSS, f" to=functions.get_weather<|channel|>commentary json<|message|>{PARIS}", "", [PARIS]),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "said", "calls"), ANSWERS)
def test_calls_are_told_wherever_an_answer_is_cut(form: CallFormat, text: str, said: str, calls: list[str]) -> None:
    expected = said, [["get_weather", arguments] for arguments in calls]
    for cut in (len(text) or 1, 1, 2, 3, 5, 8, 13):
        assert told(form, text, cut) == expected


PLAN: Any = {
    "type": "function",
    "function": {
        "name": "plan",
        "parameters": {
            "$defs": {"Day": {"type": "integer"}},
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "days": {"$ref": "#/$defs/Day"},
                "share": {"type": "number"},
                "sure": {"type": "boolean"},
                "stops": {"type": "array", "items": {"type": "string"}},
                "size": {"type": "object"},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "count": {"type": ["integer", "null"]},
                "kind": {"enum": ["5", "6"]},
            },
        },
    },
}


def tags(form: CallFormat, *calls: tuple[str, dict[str, str]]) -> str:
    """Calls as a model writes them in a form with parameters."""
    assert form.parameters
    before, between, after = map(plain, (form.parameters.before, form.parameters.between, form.parameters.after))
    written = [
        f"{name}{plain(form.middle.replace('[0-9]{1,2}', '1'))}"
        + "".join(f"{before}{key}{between}{value}{after}" for key, value in arguments.items())
        for name, arguments in calls
    ]
    return form.mark + plain(form.head) + plain(form.joint or "").join(written) + plain(form.tail)


TAGGED = dict.fromkeys(form for form in FORMS.values() if form.parameters)
TYPED = {  # as they are written, and what they are
    "days": ("2", 2),
    "share": ("1.5e3", 1500.0),
    "sure": ("True", True),
    "stops": ('["a", "<b>"]', ["a", "<b>"]),
    "size": ('{"w": 1,\n "h": null}', {"w": 1, "h": None}),
    "note": ("null", None),
    "count": ("None", None),
    "kind": ("5", "5"),
    "code": ("5", "5"),
    "unknown": ("[1]", [1]),
}


@pytest.mark.parametrize("form", TAGGED)
def test_arguments_in_tags_are_of_the_schema_s_types(form: CallFormat) -> None:
    assert form.parameters
    typed = TYPED if form.parameters.unquoted == form.parameters.between else {"code": ("5", "5")}  # else the tag says
    text = "I look." + tags(form, ("plan", {key: written for key, (written, _) in typed.items()}), ("plan", {}))
    for cut in (len(text), 1, 2, 3, 5, 8, 13):
        said, ((_, first), second) = told(form, text, cut, Tools([PLAN]))
        assert (said, second) == ("I look.", ["plan", "{}"])
        assert json.loads(first) == {key: value for key, (_, value) in typed.items()}


CODES = ["", "  if x < 1:\n    y = '</x>'\n\n", "\n", 'a "quoted" \\ text', "<b>bold</b> & é\u2028", "<"]


@pytest.mark.parametrize("form", TAGGED)
@pytest.mark.parametrize("code", CODES)
def test_a_text_between_tags_is_as_it_stands(form: CallFormat, code: str) -> None:
    text = tags(form, ("plan", {"code": code, "note": "so"}))
    for cut in (len(text), 1, 2, 3, 5, 8, 13):
        said, ((name, arguments),) = told(form, text, cut, Tools([PLAN]))
        assert (said, name, json.loads(arguments)) == ("", "plan", {"code": code, "note": "so"})


# As models of each family write them, and what they call.
NOTED: list[tuple[CallFormat, str, dict[str, Any]]] = [
    (GEMMA_4, 'plan{code:<|"|>Paris<|"|>}', {"code": "Paris"}),
    (GEMMA_4, "plan{}", {}),
    (GEMMA_4, 'plan{code:<|"|>a }<tool_call|>, "b":\\n[1\n<|"|>,days:-7}', {"code": 'a }<tool_call|>, "b":\\n[1\n',
                                                                                "days": -7}),
    (GEMMA_4, "plan{share:1.5e10,sure:false}", {"share": 1.5e10, "sure": False}),
    (GEMMA_4, 'plan{note:null,size:{w:1,h:{<|"|>a b<|"|>:[]}},stops:[<|"|>x, y<|"|>,<|"|><|"|>]}',
     {"note": None, "size": {"w": 1, "h": {"a b": []}}, "stops": ["x, y", ""]}),
    (GEMMA_4, 'plan{code: 5, count: None, stops: ["a", true]}',
     {"code": "5", "count": None, "stops": ["a", True]}),
    (GEMMA_4, "plan{size:{mark:one two}}", {"size": "{mark:one two}"}),  # which is none of the notation
    (LFM_2, "plan(code='Paris')", {"code": "Paris"}),
    (LFM_25, 'plan(code="Paris", days=2)', {"code": "Paris", "days": 2}),
    (LFM_2, "plan()", {}),
    (LFM_2, "plan(sure=True,note=None,count=None)", {"sure": True, "note": None, "count": None}),
    (LFM_2, "plan(size={'w': 1, \"h\": True, \"d\": null}, stops=['a, b', \"it's\", ])",
     {"size": {"w": 1, "h": True, "d": None}, "stops": ["a, b", "it's"]}),
    (LFM_2, r'''plan(code="def f():\n    print('x')\t\"y\" \d \x41\u00e9\U0001F600\101\ud83d\ude00\\")''',
     {"code": "def f():\n    print('x')\t\"y\" \\d Aé😀A😀\\"}),
    (LFM_2, "plan(code='''a 'b'\n\"c\" ''', days=1_000, share=.5)",
     {"code": "a 'b'\n\"c\" ", "days": 1000, "share": 0.5}),
    (LFM_2, "plan(code=five, days=five, share=nan)", {"code": "five", "days": "five", "share": "nan"}),
    (LFM_2, "plan(stops=[(1, 2), f(x=1)])", {"stops": "[(1, 2), f(x=1)]"}),
    (LFM_2, "plan(size=(1, [{}]))", {"size": [1, [{}]]}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "call", "arguments"), NOTED)
def test_arguments_of_a_notation_are_told_as_json(form: CallFormat, call: str, arguments: dict[str, Any]) -> None:
    other = written_call(form.notation, "plan", {"code": "x"})  # type: ignore[arg-type]
    two = form.mark + plain(form.head) + call + plain(form.joint or "") + other + plain(form.tail)
    for text in (two, form.mark + plain(form.head) + call.removesuffix(plain(form.tail)) + plain(form.tail)):
        for cut in (len(text), 1, 2, 3, 5, 8, 13):
            said, ((name, first), *rest) = told(form, "I look." + text, cut, Tools([PLAN]))
            assert (said, name, json.loads(first)) == ("I look.", "plan", arguments)
            assert [(name, json.loads(more)) for name, more in rest] == [("plan", {"code": "x"})] * (text == two)


@pytest.mark.parametrize(
    ("form", "text"),
    [(GEMMA_4, '<|tool_call>call:plan{code:<|"|>half a '), (LFM_2, "<|tool_call_start|>[plan(code='half a ")],
)
def test_a_text_of_a_notation_is_told_while_it_comes(form: CallFormat, text: str) -> None:
    calls = Calls(form)
    pieces = [event.text for char in text for event in calls.take(char) if isinstance(event, Arguments)]
    assert "".join(pieces) == '{"code": "half a '
    assert len(pieces) > 5


@pytest.mark.parametrize(
    ("form", "text"),
    [(LFM_2, "See [the link](a) and [f(x=1)]."), (LFM_2, "<|tool_call_start|>[no call]"), (GEMMA_4, "call:plan{}"),
     (GEMMA_4, "<|tool_call>call:plan"), (KIMI_3, "tools and <|open|>tool")],
)  # fmt: skip
def test_what_is_no_call_of_a_notation_is_said(form: CallFormat, text: str) -> None:
    for cut in (len(text), 1, 3):
        assert told(form, text, cut, Tools([PLAN])) == (text, [])


DRAWN: Any = {
    "count": {"type": ["integer", "null"]},
    "days": {"type": "integer", "minimum": 1, "maximum": 9},
    "kind": {"enum": ["5", "6"]},
    "size": {"type": "object", "properties": {"w": {"enum": [1, None]}}, "required": ["w"]},
    "stops": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    "sure": {"type": "boolean"},
}
FITS: dict[str, Callable[[Any], bool]] = {
    "count": lambda value: value is None or type(value) is int,
    "days": lambda value: value in range(1, 10),
    "kind": lambda value: value in ("5", "6"),
    "size": lambda value: value in ({"w": 1}, {"w": None}),
    "stops": lambda value: len(value) <= 2 and {*value} <= {"a", "b"},
    "sure": lambda value: type(value) is bool,
}


@pytest.mark.parametrize("form", [GEMMA_4, LFM_2, KIMI_3])
def test_values_of_a_form_are_held_to_the_schema(form: CallFormat) -> None:
    function: Any = {"name": "plan", "strict": True, "parameters": {"properties": DRAWN, "required": ["days"]}}
    tools, seen = Tools([{"type": "function", "function": function}], required=True, parallel=False), set[str]()
    for text in drawn(calls_grammar(form, tools) | Grammar({START: CALLS}), 40):
        ((_, arguments),) = told(form, text, 3, tools)[1]
        value = json.loads(arguments)
        seen |= value.keys()
        assert "days" in value
        assert all(FITS[name](of) for name, of in value.items()), value
    assert seen == DRAWN.keys()


@pytest.mark.parametrize(
    ("parameters", "at"),
    [
        ({"properties": {"x": {"type": "string", "maxLength": 5}}}, "x.maxLength"),
        ({"properties": {"x": {"type": "array", "prefixItems": [{"type": "string"}]}}}, "x.prefixItems"),
        ({"properties": {"x": {"type": "object", "minProperties": 1}}}, "x.minProperties"),
        ({"properties": {"x": {"not": {}}}}, "x"),
        ({"properties": {"a b": {}}}, "a b"),
    ],
)
def test_what_a_notation_cannot_be_held_to_is_refused_of_a_strict_tool(parameters: Any, at: str) -> None:
    function = {"name": "f", "strict": True, "parameters": parameters}
    with pytest.raises(RequestError) as raised:
        calls_grammar(GEMMA_4, Tools([{"type": "function", "function": function}]))
    assert raised.value.param == f"tools[0].function.parameters.properties.{at}"


NODE = {"properties": {"n": {"type": "integer"}, "next": {"$ref": "#/$defs/Node"}}, "required": ["n"]}
NESTED: Any = {
    "$defs": {"Node": {"type": "object", **NODE}},
    "properties": {
        "node": {"$ref": "#/$defs/Node"},
        "few": {"type": "array", "items": {"enum": [1, "b"]}, "minItems": 1, "maxItems": 2},
        "of": {"type": "object", "additionalProperties": {"type": "boolean"}},
    },
}


def test_a_notation_s_objects_lists_and_references_are_held_to() -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "strict": True, "parameters": NESTED}}
    reads = reader(calls_grammar(GEMMA_4, Tools([tool])) | Grammar({START: CALLS}))
    fitting = ["node:{n:1,next:{n:2}}", 'few:[<|"|>b<|"|>,1]', "few:[1],node:{n:1},of:{a:true,b:false}", "of:{}", ""]
    others = ["node:{}", "node:{next:{n:2}}", "few:[]", "few:[1,1,1]", "few:[2]", "of:{a:1}", "x:1", "of:{},few:[1]"]
    for arguments in fitting + others:
        assert reads(f"<|tool_call>call:f{{{arguments}}}<tool_call|>") == (arguments in fitting), arguments


def test_a_text_between_tags_may_speak_of_them() -> None:
    code = "<parameter=x> and </parameter> and </function> are tags"
    assert told(QWEN_CODER, tags(QWEN_CODER, ("plan", {"code": code})), 1, Tools([PLAN]))[1] == [
        ["plan", json.dumps({"code": code})]
    ]


@pytest.mark.parametrize("value", ["two", "NaN", "2.5", "[", "{1: {2}}"])
def test_what_is_no_number_where_one_should_be_is_told_as_it_stands(value: str) -> None:
    ((_, arguments),) = told(GLM, tags(GLM, ("plan", {"days": value})), 3, Tools([PLAN]))[1]
    assert json.loads(arguments) == {"days": value}


# As models write them that keep to their form less than its template does.
LOOSE = [
    (QWEN_CODER, "<function=plan>\n<parameter=code>\nx\n</parameter>\n</function>", {"code": "x"}),
    (QWEN_CODER, "<tool_call><function=plan><parameter=code>x</parameter></function></tool_call>", {"code": "x"}),
    (QWEN_CODER, "<tool_call>\n<function=plan>\n<parameter=code>\nx\n<parameter=days>\n2\n</parameter>\n</function>\n"
     "</tool_call>", {"code": "x", "days": 2}),
    (QWEN_CODER, "<tool_call>\n<function=plan>\n<parameter=code>\nx\n</function>\n</tool_call>", {"code": "x"}),
    (QWEN_CODER, "<tool_call>\n<function=plan>\n<parameter=days>\n2\n</parameter>", {"days": 2}),
    (GLM, "<tool_call>plan\n    <arg_key>code</arg_key>\n    <arg_value>x</arg_value>\n    </tool_call>",
     {"code": "x"}),
    (GLM, "<tool_call>plan</tool_call>", {}),
    (GLM_47, "<tool_call>plan\n<arg_key>code</arg_key>\n<arg_value>x</arg_value>\n</tool_call>", {"code": "x"}),
    (MINIMAX, '<minimax:tool_call><invoke name="plan"><parameter name="code">x</parameter></invoke>'
     "</minimax:tool_call>", {"code": "x"}),
    (DSML, tags(DSML, ("plan", {"code": "x"})).replace('string="true">x', 'string="false">[5]'), {"code": [5]}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "arguments"), LOOSE)
def test_calls_in_tags_are_told_where_the_form_is_not_kept_to(
    form: CallFormat, text: str, arguments: dict[str, Any]
) -> None:
    for cut in (len(text), 1, 2, 3, 5, 8, 13):
        said, ((name, written),) = told(form, text, cut, Tools([PLAN]))
        assert (said, name, json.loads(written)) == ("", "plan", arguments)


@pytest.mark.parametrize(
    "text", ["<tool_call> is a mark", "<tool_call>\nno call</tool_call>", "a < b <function", "<tool", "<function=plan"]
)
def test_what_is_no_call_in_tags_is_said(text: str) -> None:
    for cut in (len(text), 1, 3):
        assert told(QWEN_CODER, text, cut, Tools([PLAN])) == (text, [])


def test_a_call_that_is_cut_is_told_as_far_as_it_came() -> None:
    text = "<tool_call>\n<function=plan>\n<parameter=code>\nhalf a "
    assert told(QWEN_CODER, text, 1, Tools([PLAN])) == ("", [["plan", '{"code": "half a ']])
    assert told(QWEN_CODER, text.replace("code", "days"), 1, Tools([PLAN])) == ("", [["plan", '{"days": half a ']])


def test_only_the_first_of_several_calls_is_one_where_one_alone_may_be() -> None:
    text = ANSWERS[2][1]
    assert len(told(HERMES, text, 4, Tools([WEATHER], parallel=False))[1]) == 1


@pytest.mark.parametrize("form", dict.fromkeys(FORMS.values()))
def test_what_is_drawn_under_a_form_is_read_back(form: CallFormat) -> None:
    texts = list(drawn(calls_grammar(form, BOTH) | Grammar({START: CALLS}), 12))
    assert texts
    for text in texts:
        said, calls = told(form, text, len(text), BOTH)
        assert (said, told(form, text, 1, BOTH)) == ("", ("", calls))
        for name, arguments in calls:
            value = json.loads(arguments)
            assert name in ("get_weather", "time-now.utc")
            if name == "get_weather":
                assert isinstance(value["city"], str)
                assert isinstance(value.get("days", 0), int)
                is_bounded = not form.parameters and form.notation in (None, LFM_2.notation, LFM_25.notation)
                assert not is_bounded or len(value["city"]) <= 8  # a text between tags may be of any length
            else:
                assert value == {}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("It rains.", True),
        ("", True),
        ('Look: <tool_call>\n{"name": "get_weather", "arguments": {"city":"Paris"}}\n</tool_call>', True),
        ('<tool_call>\n{"name": "get_weather", "arguments": {"days":1}}\n</tool_call>', False),
        ('<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>', False),
        ("A <tool_call> as such", False),
    ],
)
def test_a_text_keeps_to_the_form_once_it_calls(text: str, fits: bool) -> None:
    tools = Tools([WEATHER], parallel=False)
    assert reader(free_or_calls(HERMES, calls_grammar(HERMES, tools)))(text) == fits


def test_calls_without_a_mark_are_values_of_a_schema_beside_an_answers() -> None:
    form = replace(LLAMA_3, example='{"name": "find_sum", "parameters": {"of_these": "5 and 6"}}')
    said = checked({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, "said")
    values = calls_as_values(form, BOTH)
    assert values
    reads = reader(Grammar({START: "@either"}, {"either": any_of([said, *values])}))
    for text in ('{"n": 5}', '{"name": "get_weather", "parameters": {"city": "Paris"}}',
                 '{"name": "time-now.utc", "parameters": {}}'):  # fmt: skip
        assert reads(text)
    for text in ('{"name": "get_weather", "parameters": {}}', '{"name": "get_weather"}', '{"n": 5, "parameters": {}}'):
        assert not reads(text)
    assert calls_as_values(HERMES, BOTH) is calls_as_values(FUNCTIONARY_32, BOTH) is None


def test_of_a_tool_that_is_not_strict_a_schema_may_say_anything() -> None:
    parameters = {"type": "object", "properties": {"x": {"not": {}}}}
    function: dict[str, object] = {"name": "get_weather", "parameters": parameters}
    grammar = calls_grammar(HERMES, Tools([{"type": "function", "function": function}]))
    assert reader(grammar | Grammar({START: CALLS}))(
        '<tool_call>\n{"name": "get_weather", "arguments": {"x":1}}\n</tool_call>'
    )
    with pytest.raises(RequestError) as raised:
        calls_grammar(HERMES, Tools([{"type": "function", "function": function | {"strict": True}}]))
    assert raised.value.param == "tools[0].function.parameters.properties.x.not"


@pytest.mark.parametrize("parameters", [None, {}, {"properties": []}, {"properties": {"x": True}, "required": 5}])
def test_of_a_tool_in_tags_a_schema_may_say_nothing(parameters: Any) -> None:
    tools = Tools([{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}])
    reads = reader(calls_grammar(GLM, tools) | Grammar({START: CALLS}))
    assert reads("<tool_call>get_weather\n</tool_call>")


def test_a_text_in_tags_is_held_to_its_choices_and_to_nothing_else() -> None:
    function: Any = {
        "name": "f",
        "strict": True,
        "parameters": {"properties": {"x": {"type": "string", "minLength": 2}}},
    }
    with pytest.raises(RequestError) as raised:
        calls_grammar(GLM, Tools([{"type": "function", "function": function}]))
    assert raised.value.param == "tools[0].function.parameters.properties.x.minLength"
    function["parameters"] = {"properties": {"x": {"enum": ["a", "b"]}}, "required": ["x"]}
    reads = reader(calls_grammar(GLM, Tools([{"type": "function", "function": function}])) | Grammar({START: CALLS}))
    assert reads(tags(GLM, ("f", {"x": "b"})))
    assert not reads(tags(GLM, ("f", {"x": "c"})))
    assert not reads(tags(GLM, ("f", {})))


CALL = json.dumps(
    [{"id": "call_123", "type": "function", "function": {"name": "get_weather", "arguments": json.loads(PARIS)}}]
)
HISTORY: Any = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "", "tool_calls": CALL},
    {"role": "tool", "content": "grey", "tool_call_id": "call_123"},
    {"role": "tool", "content": "wet"},
]


def test_a_template_without_tools_has_them_in_words() -> None:
    system, user, call, results = with_tools(HISTORY, Tools([WEATHER]), HERMES)
    assert system["role"] == "system"
    assert json.dumps(WEATHER) in str(system["content"])
    assert HERMES.example in str(system["content"])
    assert user == HISTORY[0]
    written = f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>'
    assert call == {"role": "assistant", "content": written}
    assert results == {
        "role": "user",
        "content": "<tool_response>\ngrey\n</tool_response>\n<tool_response>\nwet\n</tool_response>",
    }
    (first, *_) = with_tools(HISTORY, Tools([WEATHER]), replace(HERMES, takes_system=False))
    assert (first["role"], str(first["content"])[-5:]) == ("user", "Rain?")
    brief: Any = [{"role": "system", "content": "Be brief."}, *HISTORY]
    assert str(with_tools(brief, Tools([WEATHER]), HERMES)[0]["content"]).startswith("Be brief.\n\nYou may call")
    assert with_tools(HISTORY, None, HERMES)[0] == HISTORY[0]


def test_a_template_that_writes_no_calls_has_them_in_the_model_s_notation() -> None:
    user, call, *results = with_tools(HISTORY, Tools([WEATHER]), replace(LFM_2, listed=True))
    assert user == HISTORY[0]
    assert call == {"role": "assistant", "content": '<|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>'}
    assert results == HISTORY[2:]


def test_a_template_with_tools_has_calls_in_its_own_form() -> None:
    listed = CallFormat("", "", "", "", None, "", "", True, CallForm(None, True, "short"), True)
    _, call, result, _ = with_tools(HISTORY, Tools([WEATHER]), listed)
    (written,) = call["tool_calls"]  # type: ignore[misc, attr-defined]
    assert written["function"] == {"name": "get_weather", "arguments": PARIS}
    assert len(written["id"]) == 9
    assert (result["tool_call_id"], result["name"]) == (written["id"], "get_weather")

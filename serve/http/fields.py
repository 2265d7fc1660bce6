"""Which fields of a request do something here, which change nothing, and which are refused by name.

What is done are the fields of the models in requests.py. Every other must stand here, or it is not known and is refused
too: nothing that a client asks for is passed over in silence. The names are OpenAI's, llama.cpp's and vLLM's;
docs/serving.md shows these tables.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from llama.errors import RequestError

Unasked = tuple[object, ...]  # values that ask for nothing

# What changes no answer here, whatever it says.
HARMLESS = frozenset(
    {
        # for OpenAI's own accounts and caches
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        # for other servers' caches, queues and logs
        "cache_prompt",
        "cache_salt",
        "id_slot",
        "keep_alive",
        "priority",
        "request_id",
        # parts of samplers that are refused where they are on
        "dry_allowed_length",
        "dry_base",
        "dry_penalty_last_n",
        "dry_sequence_breakers",
        "dynatemp_exponent",
        "mirostat_eta",
        "mirostat_tau",
        "xtc_threshold",
    }
)
# What would change the answer or what is told of it, and the values with which it would not.
REFUSED: dict[str, Unasked] = {
    # OpenAI's
    "audio": (),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "web_search_options": (),
    # what an answer must look like
    "allowed_token_ids": (),
    "bad_words": ([],),
    # when it ends
    "n_keep": (0, -1),
    "n_predict": (),
    "t_max_predict_ms": (0, -1),
    "truncate_prompt_tokens": (),
    # how it is drawn
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "early_stopping": (False,),
    "length_penalty": (1,),
    "lora": ([],),
    "min_keep": (0,),
    "mirostat": (0,),
    "repeat_last_n": (),
    "samplers": (),
    "top_n_sigma": (-1,),
    "typical_p": (1,),
    "use_beam_search": (False,),
    "xtc_probability": (0,),
    # how the prompt is written
    "add_special_tokens": (False,),
    "chat_template": (),
    "documents": ([],),
    "mm_processor_kwargs": ({},),
    # what is told of it
    "include_reasoning": (True,),
    "n_probs": (0,),
    "post_sampling_probs": (False,),
    "prompt_logprobs": (),
    "return_progress": (False,),
    "return_token_ids": (False,),
    "return_tokens": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "timings_per_token": (False,),
}
# The same of a conversation alone.
CHAT_REFUSED: dict[str, Unasked] = {"best_of": (1,), "echo": (False,), "suffix": ("",)}
# The same of a message.
MESSAGE_HARMLESS = frozenset({"annotations", "id", "refusal"})
MESSAGE_REFUSED: dict[str, Unasked] = {
    "audio": (),
}
# The same of `stream_options`.
STREAM_HARMLESS = frozenset({"include_obfuscation"})
STREAM_REFUSED: dict[str, Unasked] = {"continuous_usage_stats": (False,)}


# The same of Anthropic's requests (messages.py).
MESSAGES_HARMLESS = frozenset({"cache_control", "inference_geo", "metadata", "service_tier"})
MESSAGES_REFUSED: dict[str, Unasked] = {
    "container": (),
    "context_management": (),
    "diagnostics": (),
    "mcp_servers": ([],),
    "speed": ("standard",),
    "thread": (),
}
THINKING_REFUSED: dict[str, Unasked] = {"budget_tokens": (), "display": ("summarized",)}
# The same of OpenAI's Responses (responses.py).
RESPONSES_HARMLESS = frozenset(
    {
        "max_tool_calls",  # of tools that OpenAI's servers run
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",  # nothing is, and each answer says so
        "user",
    }
)
RESPONSES_REFUSED: dict[str, Unasked] = {
    "background": (False,),
    "context_management": ([],),
    "conversation": (),
    "previous_response_id": (),
    "prompt": (),
    "truncation": ("disabled",),
}
REASONING_REFUSED: dict[str, Unasked] = {"generate_summary": ("auto",), "summary": ("auto",)}
ITEM_HARMLESS = frozenset({"id", "status"})
REASONING_ITEM_REFUSED: dict[str, Unasked] = {"encrypted_content": ()}
PART_HARMLESS = frozenset({"annotations", "logprobs"})
# The same of embeddings.
EMBEDDINGS_HARMLESS = frozenset({"user"})
EMBEDDINGS_REFUSED: dict[str, Unasked] = {
    "add_special_tokens": (True,),
    "embd_normalize": (2,),
    "normalize": (True,),
    "truncate_prompt_tokens": (),
}
# The same of a block of a message's content.
BLOCK_HARMLESS = frozenset({"cache_control", "signature"})
BLOCK_REFUSED: dict[str, Unasked] = {"citations": ([],)}
# The same of tools, calls and results in both of these.
TOOL_HARMLESS = frozenset({"cache_control", "eager_input_streaming"})
TOOL_REFUSED: dict[str, Unasked] = {
    "allowed_callers": (["direct"],),
    "async": (False,),
    "defer_loading": (False,),
    "input_examples": ([],),
    "output_schema": (),
}
CALL_HARMLESS = frozenset({"cache_control", "id", "is_error", "name", "status"})  # a result's name is its call's
CALL_REFUSED: dict[str, Unasked] = {
    "async": (False,),
    "caller": ({"type": "direct"},),
    "namespace": (),
    "toolset_name": (),
}


@contextmanager
def called(names: Mapping[str, str]) -> Iterator[None]:
    """Let a RequestError name fields as the client does, where its request was translated.

    Args:
        names: the client's for ours, `messages[0]` for instance standing for what is below it and has none of its own.
    """
    try:
        yield
    except RequestError as error:
        param = error.param or ""
        if own := max((own for own in names if f"{param}.".startswith((f"{own}.", f"{own}["))), key=len, default=""):
            error.param = names[own] + param.removeprefix(own)
            error.args = (str(error).replace(own, names[own]),)
        raise


def check_fields(
    given: Mapping[str, object] | None, harmless: frozenset[str], refused: Mapping[str, Unasked], where: str = ""
) -> None:
    """Raise RequestError for the first field that is not done here and would change something.

    Args:
        given: the fields that no model of a request has. None as a value asks for nothing.
        harmless: those that change nothing.
        refused: those that do, with the values with which they do not.
        where: what the fields are of, such as `messages[0].`.
    """
    for name, value in (given or {}).items():
        if value is None or name in harmless:
            continue
        param = where + name[:100].encode(errors="replace").decode()
        if name not in refused:
            raise RequestError(f"{param} is not known here: leave it out.", "unknown_parameter", param)
        if value not in refused[name]:
            raise RequestError(f"{param} is not supported: leave it out.", "unsupported_parameter", param)

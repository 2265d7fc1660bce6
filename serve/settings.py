"""Settings of the server, from environment variables: field `max_tokens` is SERVE_MAX_TOKENS.

The fields of `Settings` are the one source: names, types, defaults, ranges and the text of `python -m serve --help`.
"""

import dataclasses
import difflib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self, get_args, get_type_hints

from common.errors import UserError
from llama.cpus import usable_cpus

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class About:
    """What `--help` says of a setting, and the values that it can have."""

    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""


RENAMED = {"SERVE_LOADED": "SERVE_MAX_LOADED_MODELS", "SERVE_ASIDE": "SERVE_PROMPT_CACHE_MB"}  # since 0.1
# What the model's context bounds by itself, since 0.1.
DROPPED = {"SERVE_MAX_CHARS", "SERVE_MAX_MESSAGES"}
# What Kubernetes sets in each container for each Service, after its name: that named serve has a SERVE_PORT, too.
SERVICE_HOST = "SERVICE_HOST"
SERVICE_LINK = re.compile(
    rf"({SERVICE_HOST}|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=.*|PORT=(tcp|udp|sctp)://.*"
)
SITES = r"https?://[\w.-]+(:\d+)?(\s*,\s*https?://[\w.-]+(:\d+)?)*"  # a wider one could say more in the policy


def space_frame() -> str:
    """Return who shows the page in a frame: in a Space of Hugging Face its own page does."""
    return "https://huggingface.co" if os.environ.get("SPACE_ID") else ""


@dataclass(frozen=True)
class Settings:
    """How the server runs and what it allows; every limit holds on the server, for every way in."""

    host: Annotated[str, About("address to listen on; 0.0.0.0 lets other machines in")] = "127.0.0.1"
    port: Annotated[int, About("port to listen on", 1, 65535)] = 7860
    models: Annotated[str, About("folders, hf://owner/name@revision, models:/name@alias; separated by commas")] = (
        "models/gguf"
    )
    model: Annotated[str, About("model picked at first; the smallest one that chats if unset")] = ""
    base: Annotated[str, About("model that adapters lie over, where several would do")] = ""
    canary: Annotated[
        str, About("models:/name@alias, or one of the models, that is tried beside the one picked first")
    ] = ""
    canary_share: Annotated[float, About("share of new conversations on the page that it answers", 0, 1)] = 0.1
    max_loaded_models: Annotated[
        int, About("models kept in memory at once, the others are loaded when asked", 1, 64)
    ] = 1
    context: Annotated[int, About("tokens of prompt and answer, if the model can hold as many", 64, 1 << 20)] = 4096
    slots: Annotated[int, About("answers given at once; each has room for a whole context", 1, 32)] = 4
    overflow: Annotated[str, About("what becomes of a conversation beyond the context", choices=("refuse", "drop"))] = (
        "refuse"
    )
    prompt_cache_mb: Annotated[
        int,
        About(
            "MiB for conversations to go on with beside one a slot, for each model loaded, where memory is free",
            0,
            1 << 20,
        ),
    ] = 256
    follow_seconds: Annotated[
        int,
        About(
            "seconds between two looks whether an alias or a linked folder of SERVE_MODELS moved; 0: never", 0, 86400
        ),
    ] = 30
    threads: Annotated[int, About("threads; the CPUs this process may use if unset", 1, 1024)] = field(
        default_factory=usable_cpus
    )
    speculation: Annotated[
        str, About("whether an answer's next tokens are drafted and checked several at once", choices=("on", "off"))
    ] = "on"
    draft: Annotated[str, About("one of the models, which drafts for those of its vocabulary")] = ""
    max_tokens: Annotated[int, About("longest answer that may be asked for, in tokens", 1, 1 << 20)] = 1024
    temperature_max: Annotated[float, About("highest temperature that may be asked for", 0, 100)] = 2.0
    queue: Annotated[int, About("requests that may wait for their turn; more are turned away", 1, 100_000)] = 32
    drain: Annotated[int, About("seconds that answers have to end when the server is asked to stop", 0, 3600)] = 8
    lameduck: Annotated[
        int, About("seconds before that in which questions are still taken in, and /readyz says 503", 0, 600)
    ] = 0
    max_body: Annotated[int, About("longest body of a request, in bytes", 1000, 1 << 30)] = 1_000_000
    request_seconds: Annotated[
        int,
        About("seconds that a client has for a request's headers, and for its body; more for 1000 bytes/s", 1, 3600),
    ] = 15
    connections: Annotated[int, About("connections from one address; in all, if SERVE_PROXY is set", 1, 1 << 20)] = 1000
    rate: Annotated[int, About("requests a minute from one address; 0: no limit", 0, 1_000_000)] = 60
    proxy: Annotated[int, About("proxies in front, by whose X-Forwarded-For an address is known", 0, 8)] = 0
    api_key: Annotated[
        str, About("key that programs give as `Authorization: Bearer` or `x-api-key`; none is asked for if unset")
    ] = field(default="", repr=False)
    admin_key: Annotated[str, About("key for /admin, given as the API's is; without one there is no /admin")] = field(
        default="", repr=False
    )
    login: Annotated[str, About("user:password for the page; programs then need a key", pattern=".+?:.+")] = field(
        default="", repr=False
    )
    embed: Annotated[str, About("https://SITE,… whose pages may show this one in a frame", pattern=SITES)] = field(
        default_factory=space_frame
    )
    feedback: Annotated[str, About("folder for what visitors say of answers; off: they are not asked")] = "feedback"
    feedback_repo: Annotated[str, About("private dataset on the Hub, owner/name, that feedback is pushed to")] = ""
    feedback_minutes: Annotated[int, About("minutes between two pushes of feedback", 1, 1440)] = 5

    @property
    def embedders(self) -> list[str]:
        """The sites of `embed`."""
        return [site.strip() for site in self.embed.split(",") if site.strip()]

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings; an unset or empty variable means the default.

        Raises UserError with the variable, its value and what it may be; for one that is no setting, the nearest.
        """
        texts = _set_variables(environment)
        fields = {
            variable(name): (name, get_args(hint)) for name, hint in get_type_hints(cls, include_extras=True).items()
        }
        _refuse_unknown(texts, list(fields))
        parsed = {}
        for key, text in texts.items():
            name, (kind, about) = fields[key]
            parsed[name] = _parse(key, text, kind, about)
        settings = cls(**parsed)
        if settings.admin_key and settings.admin_key == settings.api_key:
            raise UserError("SERVE_ADMIN_KEY is SERVE_API_KEY, which others know: set it to a key of its own")
        return settings


def variable(name: str) -> str:
    """Return the environment variable of a field."""
    return f"SERVE_{name.upper()}"


def of_the_page(settings: Settings) -> list[str]:
    """Return the variables that were set and mean something on the page alone."""
    usual = Settings()
    names = ("canary_share", "embed", "feedback", "feedback_minutes", "feedback_repo", "login")
    return [variable(name) for name in names if getattr(settings, name) not in (getattr(usual, name), "off")]


def describe() -> str:
    """Return one line for each variable, for `--help`."""
    hints = get_type_hints(Settings, include_extras=True)
    lines = []
    for setting in dataclasses.fields(Settings):
        about = get_args(hints[setting.name])[1]
        default = f" ({setting.default})" if setting.default not in ("", dataclasses.MISSING) else ""
        lines.append(f"  {variable(setting.name):<22} {about.text}{default}")
    return "\n".join(lines)


def _set_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what somebody has set: the variables that begin as ours and are not empty, without a cluster's own."""
    ours = {name: text.strip() for name, text in environment.items() if name.startswith("SERVE_") and text.strip()}
    links = _service_links(ours)
    if links:
        logger.warning("warning: no settings, but what Kubernetes says of a Service: %s", ", ".join(links))
    return {name: text for name, text in ours.items() if name not in links}


def _service_links(ours: Mapping[str, str]) -> list[str]:
    """Return the variables that a cluster has set: each Service has its address among them."""
    services = tuple(name.removesuffix(SERVICE_HOST) for name in ours if name.endswith(f"_{SERVICE_HOST}"))
    rests = ((name, name.removeprefix(service), text) for service in services for name, text in ours.items())
    return sorted({name for name, rest, text in rests if rest != name and SERVICE_LINK.fullmatch(f"{rest}={text}")})


def _refuse_unknown(variables: Iterable[str], settings: list[str]) -> None:
    """Raise UserError for the first variable that is no setting, with what it may have been meant to be."""
    for name in sorted(set(variables) - set(settings)):
        if name in RENAMED:
            raise UserError(f"{name} is called {RENAMED[name]} now; set that instead")
        if name in DROPPED:
            raise UserError(f"{name} is no setting any more, SERVE_CONTEXT bounds a conversation: unset it")
        nearest = difflib.get_close_matches(name.upper(), settings, 1, cutoff=0)[0]
        raise UserError(
            f"{name} is no setting; the nearest is {nearest}, and --help lists all: set that, or unset {name}"
        )


def _parse(name: str, text: str, kind: type, about: About) -> Any:
    """Return the value of one variable in its type and range. Raises UserError."""
    if about.choices and text not in about.choices:
        raise UserError(f"{name}={text}: must be {' or '.join(about.choices)}")
    if about.pattern and not re.fullmatch(about.pattern, text):  # not shown, it may be a secret
        raise UserError(f"{name}: must be {about.text.split()[0]}")
    try:
        value = kind(text)
        if about.low is not None and not about.low <= value <= about.high:  # NaN fails this comparison too
            raise ValueError
    except ValueError:
        noun = "a whole number" if kind is int else "a number"
        raise UserError(f"{name}={text}: must be {noun} from {about.low} to {about.high}") from None
    return value

"""Answers by continuous batching: where one ends, the next question begins (Yu et al. 2022, Orca).

Each answer has a slot of one cache, as long as the longest may become. Prompts are read end to end, without padding,
into slots that are free; a step then adds a token to every slot, those without an answer among them, so that all steps
are one and the same CUDA graph. Once a step the ends are looked at.
"""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain

import torch
from transformers import GenerationConfig, PreTrainedModel

from pipeline.evaluation.kernels import attending_by, fused_norms
from pipeline.models.attention import SLOTS, SlotCache
from pipeline.models.loading import largest_head

logger = logging.getLogger(__name__)

AT_ONCE = 512  # answers, where no number is asked for
READ = 16384  # tokens of prompts in one forward pass, at most, but for a longer prompt alone
FREE = 16  # prompts are read once one of so many slots is free: a pass of few tokens takes as long as one of more
SHARE = 0.5  # of the free memory, for the cache


def answer_continuously(
    model: PreTrainedModel,
    settings: GenerationConfig,
    prompts: Sequence[list[int]],
    at_once: int | None = None,
    attention: str = SLOTS,
) -> Iterator[tuple[int, list[int]]]:
    """Yield the number of each prompt and the tokens that follow it, in the order in which they end.

    Prompts that the cache has no room for are left out, and all that are left once the GPU fails at it, with a line of
    the log.

    Args:
        model: on its device.
        settings: of the generation: its ends, and the most new tokens.
        prompts: token ids.
        at_once: prompts at once, at most; None for AT_ONCE.
        attention: an implementation's name, over the slots of a cache.
    """
    tokens, new = tokens_that_fit(model), settings.max_new_tokens
    waiting = deque(number for number, prompt in enumerate(prompts) if len(prompt) + new <= tokens)
    left, reason = len(prompts), "the memory has no room for so long prompts"
    with attending_by(model, attention), fused_norms(model):
        try:
            if waiting:
                room = max(len(prompts[number]) for number in waiting) + new
                decoder = Decoder(model, settings, min(at_once or AT_ONCE, len(waiting), tokens // room), room)
                for number, answer in answers(decoder, prompts, waiting):
                    left -= 1
                    yield number, answer
        except RuntimeError as error:  # also that of a memory that is full
            reason = str(error)
    if left:
        logger.info(f"continuous batching leaves {left} to batches: {reason}")


def answers(decoder: "Decoder", prompts: Sequence[list[int]], waiting: deque[int]) -> Iterator[tuple[int, list[int]]]:
    """Yield the number and the answer of each prompt whose number waits."""
    answering: dict[int, int] = {}  # slots, and the numbers of what they answer
    while waiting or answering:
        free = deque(slot for slot in range(decoder.slots) if slot not in answering)
        if waiting and (len(free) * FREE >= decoder.slots or not answering):
            while waiting and free:
                fitting = next_pack([len(prompts[number]) for number in waiting][: len(free)])
                begun = {free.popleft(): waiting.popleft() for _ in range(fitting)}
                decoder.read([*begun], [prompts[number] for number in begun.values()])
                answering |= begun
        decoder.step()
        for slot, answer in decoder.ended(answering):
            yield answering.pop(slot), answer


def next_pack(lengths: Sequence[int]) -> int:
    """Return how many of the prompts, in their order, are read at once."""
    return max(1, sum(tokens <= READ for tokens in accumulate(lengths)))


class Decoder:
    """Greedy answers in the slots of a cache."""

    def __init__(self, model: PreTrainedModel, settings: GenerationConfig, slots: int, room: int) -> None:
        """With `slots` answers at once, of `room` tokens at most, the prompt's included."""
        self._model, self.slots = model, slots
        self._cache = SlotCache(slots, room)
        self._rows = torch.arange(slots, device=model.device)
        # Of each slot: its newest token, which is still to be read, where it stands, how much was said, and what.
        self._token, self._position, self._count = (torch.zeros_like(self._rows) for _ in range(3))
        self._said = self._rows.new_zeros(slots, settings.max_new_tokens)
        self._alive = torch.zeros_like(self._rows, dtype=torch.bool)
        self._ends = self._rows.new_tensor(settings.eos_token_id or [])
        self.step = captured(self._decode) if model.device.type == "cuda" else self._decode

    @torch.inference_mode()
    def read(self, slots: Sequence[int], prompts: Sequence[list[int]]) -> None:
        """Begin answers: read a prompt into each of some slots, and say the first token behind it."""
        device = self._model.device
        rows, lengths = torch.tensor([slots, [*map(len, prompts)]], device=device)
        ids = torch.tensor([*chain.from_iterable(prompts)], device=device)
        starts = torch.tensor([0, *accumulate(map(len, prompts))], device=device)
        numbers = torch.repeat_interleave(lengths, output_size=len(ids))
        places = torch.arange(len(ids), device=device) - starts[numbers]
        last, longest = starts[1:] - 1, max(map(len, prompts))
        logits = self._logits(
            ids, places, rows[numbers], logits_to_keep=last, cu_seq_lens_q=starts.int(), max_length_q=longest
        )
        self._position[rows], self._count[rows], self._alive[rows] = lengths, 0, True
        self._say(rows, logits)

    @torch.inference_mode()
    def ended(self, among: Sequence[int] | dict[int, int]) -> list[tuple[int, list[int]]]:
        """Return those of some slots whose answers have ended, with their tokens."""
        alive = self._alive.tolist()
        slots = [slot for slot in among if not alive[slot]]
        if not slots:
            return []
        said, counts = self._said[slots].tolist(), self._count[slots].tolist()
        return [(slot, tokens[:count]) for slot, tokens, count in zip(slots, said, counts, strict=True)]

    @torch.inference_mode()
    def _decode(self) -> None:
        """Add a token to each answer; what the other slots give is as good as nothing, and changes none of them."""
        lengths = (self._position + 1).int()
        logits = self._logits(self._token, self._position, self._rows, lengths=lengths)
        self._position += self._alive
        self._say(self._rows, logits)

    def _logits(
        self, ids: torch.Tensor, places: torch.Tensor, rows: torch.Tensor, **more: torch.Tensor | int
    ) -> torch.Tensor:
        """Return logits behind tokens that stand at these places of these slots, one forward pass over all of them."""
        cache = {"cache": self._cache, "where": (rows, places)}
        output = self._model(input_ids=ids[None], position_ids=places[None], use_cache=False, **cache, **more)
        logits: torch.Tensor = output.logits[0]
        return logits

    def _say(self, rows: torch.Tensor, logits: torch.Tensor) -> None:
        """Add the likeliest token to the answers in some slots, as far as they are under way."""
        alive, token = self._alive[rows], logits.argmax(-1)
        place = self._count[rows].clamp(max=self._said.shape[1] - 1)
        self._said[rows, place] = torch.where(alive, token, self._said[rows, place])
        self._token[rows] = token
        self._count[rows] += alive
        is_end = (token[:, None] == self._ends).any(1)
        self._alive[rows] = alive & ~is_end & (self._count[rows] < self._said.shape[1])


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return a computation as a CUDA graph, which begins at once what takes Python longer to ask for than to compute.

    It is computed once before, which takes the memory that lasts and lets libraries set themselves up.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def tokens_that_fit(model: PreTrainedModel) -> int:
    """Return how many tokens of the cache the free memory of a GPU has room for; a CPU has room for all."""
    if model.device.type != "cuda":
        return sys.maxsize
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    values = 2 * config.num_hidden_layers * heads * largest_head(config)
    free = torch.cuda.mem_get_info(model.device)[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(SHARE * free / (values * model.dtype.itemsize))

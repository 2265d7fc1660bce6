"""Answers by continuous batching: where one ends, the next question begins (Yu et al. 2022, Orca).

Transformers has it, with a paged cache (Kwon et al. 2023) and CUDA graphs; what attends is PyTorch's FlashAttention
(pipeline/models/attention.py), since the kernels that Transformers would take are on the hub alone.
"""

import logging
import math
import sys
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager, ContinuousMixin

from pipeline.evaluation.kernels import attending_by
from pipeline.models.attention import PAGED
from pipeline.models.loading import largest_head

logger = logging.getLogger(__name__)

AT_ONCE = 1024  # questions, where no number is asked for
BLOCK = 256  # tokens; the cache is given out in blocks
READ = 8192  # tokens in one forward pass, at most
FILLED = 256  # a pass is filled up to a multiple of these tokens, and each number of them is a graph of its own
SHARE = 0.5  # of the free memory, for the cache
PATIENCE = 1.0  # seconds between looks at whether it still runs


def answer_continuously(
    model: PreTrainedModel,
    settings: GenerationConfig,
    prompts: Sequence[list[int]],
    at_once: int | None = None,
    attention: str = PAGED,
) -> Iterator[tuple[int, list[int]]]:
    """Yield the number of each prompt and the tokens that follow it, in the order in which they end.

    Prompts that it fails at are left out, with a line of the log, such as those that the cache has no room for; so are
    all that are left once it fails itself.

    Args:
        model: on its device.
        settings: of the generation, which the model's own do not add to.
        prompts: token ids.
        at_once: prompts at once, at most; None for AT_ONCE.
        attention: an implementation's name, for a paged cache.
    """
    needs = [math.ceil((len(prompt) + settings.max_new_tokens) / BLOCK) + 1 for prompt in prompts]
    at_once = min(at_once or AT_ONCE, len(prompts))
    blocks = min(sum(sorted(needs)[-at_once:]), blocks_that_fit(model))
    fitting = [number for number, needed in enumerate(needs) if needed <= blocks]
    with attending_by(model, attention):
        able = cast(ContinuousMixin, model)  # as its annotation does not say
        manager = able.init_continuous_batching(settings, configuration(model, blocks, at_once))
        try:
            numbers = {manager.add_request(prompts[number]): number for number in fitting}
            manager.start()
            for name, tokens in results(manager, len(numbers)):
                yield numbers[name], tokens
        finally:
            manager.stop(hard_stop=True)
            manager.destroy()


def results(manager: ContinuousBatchingManager, count: int) -> Iterator[tuple[str, list[int]]]:
    """Yield the name and the tokens of each request that ends well."""
    failed, reason = 0, "it ended"
    while count:
        ended = manager.get_result(timeout=PATIENCE)
        if ended is None and not manager.is_running():
            break
        if ended is None or not ended.is_finished():
            continue
        count -= 1
        if ended.error is None:
            yield ended.request_id, ended.generated_tokens
        else:
            failed, reason = failed + 1, ended.error
    if failed or count:
        logger.info(f"continuous batching leaves {failed + count} to batches: {reason}")


def configuration(model: PreTrainedModel, blocks: int, at_once: int) -> ContinuousBatchingConfig:
    """Return a cache of so many blocks for so many prompts at once.

    Each graph reads all of the cache, so that there are few of them: one for each length of what it holds would take
    longer to capture than it saves.
    """
    on_gpu = model.device.type == "cuda"
    return ContinuousBatchingConfig(
        block_size=BLOCK,
        num_blocks=blocks,
        max_batch_tokens=READ,
        max_requests_per_batch=at_once,
        use_cuda_graph=on_gpu,
        use_async_batching=on_gpu,
        q_padding_interval_size=FILLED,
        kv_padding_interval_size=blocks * BLOCK,
    )


def blocks_that_fit(model: PreTrainedModel) -> int:
    """Return how many blocks of the cache the free memory of a GPU has room for; a CPU has room for all.

    What a token takes are its keys and values and, as Transformers reckons, its part of a mask, twice.
    """
    if model.device.type != "cuda":
        return sys.maxsize
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    values = 2 * config.num_hidden_layers * heads * largest_head(config) + 2 * READ
    free = torch.cuda.mem_get_info(model.device)[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(SHARE * free / (BLOCK * values * model.dtype.itemsize))

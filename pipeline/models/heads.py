"""What heads do with hidden states."""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from pipeline.models.families import head_keys

CHUNK = 1024  # positions whose logits exist at a time
TRIED = 8  # tokens


def is_known_to_do_more(config: PreTrainedConfig) -> bool:
    """Return whether a configuration has something by a name that is known, such as a cap on logits."""
    return any(getattr(config, key, None) for key in head_keys())


@torch.inference_mode()
def does_more(model: PreTrainedModel) -> bool:
    """Return whether logits are another thing than the head's product with hidden states, as a few tokens show."""
    if is_known_to_do_more(model.config):
        return True
    products: list[torch.Tensor] = []
    watch = model.get_output_embeddings().register_forward_hook(lambda _, __, product: products.append(product))
    try:
        logits = model(input_ids=torch.arange(TRIED, device=model.device)[None], use_cache=False).logits
    finally:
        watch.remove()
    return not (products and torch.equal(products[-1].float(), logits.float()))

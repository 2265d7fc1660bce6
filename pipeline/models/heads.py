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
    ids = torch.arange(TRIED, device=model.device)[None]
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    product = model.get_output_embeddings()(hidden)
    return not torch.equal(product.float(), model(input_ids=ids, use_cache=False).logits.float())

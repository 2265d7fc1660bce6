"""How each part of a published model is loaded, for its README.md."""

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.gguf_types import OUT_TYPES
from pipeline.core.records import Lineage, ManifestFile
from pipeline.models.packaged import is_packaged

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def on_hub(path: str) -> bool:
    """Return whether a base is named on the Hub, and is no folder."""
    return bool(HUB_NAME.fullmatch(path)) and not Path(path).is_dir()


def shown(path: str) -> str:
    """Return a base as a README may name it: nobody's folders are published."""
    return Path(path).name if Path(path).is_absolute() else path


def path_in_repo(file: ManifestFile) -> str:
    """Return where a GGUF file stands in the repository: llama.cpp and others look for models at its root."""
    return f"adapter/{file.file}" if file.of == "adapter" else file.file


def ways_to_load(repository: str, parts: Sequence[str], files: list[ManifestFile], lineage: Lineage) -> list[str]:
    """Return how each part is loaded, by those who would load it."""
    tuned = [file for file in files if file.of == "tuned"]
    loras = [file for file in files if file.of == "adapter"]
    sections = []
    if tuned:
        sections += [_gguf(repository, next((f for f in tuned if f.type not in OUT_TYPES), tuned[0]))]
    if "adapter" in parts:
        sections += [_adapter(repository, lineage, loras)]
    if "merged" in parts:
        sections += [_merged(repository)]
    return sections


def _gguf(repository: str, file: ManifestFile) -> str:
    return f"""llama.cpp and Ollama:

```bash
llama-server -hf {repository}:{file.type}
ollama run hf.co/{repository}:{file.type}
```

llama-cpp-python:

```python
from llama_cpp import Llama

llm = Llama.from_pretrained("{repository}", filename="{file.file}", n_ctx=0)
print(llm.create_chat_completion([{{"role": "user", "content": "What is 5 + 6?"}}]))
```

Tunesmith's chat, with a commit of this repository for `COMMIT`:

```bash
SERVE_MODELS=hf://{repository}@COMMIT/{file.file} tunesmith serve
```
"""


def _adapter(repository: str, lineage: Lineage, files: list[ManifestFile]) -> str:
    path, revision = lineage.base.merge_base
    base, where = f'"{shown(path)}"' + (f', revision="{revision}"' if revision else ""), ""
    if is_packaged(path):
        base, where = "FOLDER", f"`FOLDER` is what `python -m pipeline.models.packaged {path} {revision}` prints.\n"
    onto_gguf = "".join(
        f"\nThe same for llama.cpp, on the base as GGUF: `llama-server -m base.gguf --lora {path_in_repo(file)}`\n"
        for file in files
    )
    return f"""The adapter, with PEFT:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, "{repository}", subfolder="adapter")
tokenizer = AutoTokenizer.from_pretrained("{repository}", subfolder="adapter")
```
{where}{onto_gguf}"""


def _merged(repository: str) -> str:
    return f"""The merged weights, with Transformers:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{repository}", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("{repository}")
```
"""

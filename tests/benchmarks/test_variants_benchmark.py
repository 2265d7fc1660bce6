"""What benchmarks/variants.py makes of what it has measured, and that it measures on a small model."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_gguf import write_random

from benchmarks import variants
from benchmarks.variants import BENCH, PLAIN, Round, Speed, summed_up, table
from llama.model import Entry


def test_ratios_are_taken_round_by_round() -> None:
    fast = {PLAIN: (100, 10), "new": (150, 12), BENCH: (1, 8)}
    rounds = []
    for slow in (1.0, 0.25, 0.5):
        speeds = {name: Speed(prefill * slow, decode * slow) for name, (prefill, decode) in fast.items()}
        rounds.append(Round({"Q8_0": speeds}, 24e9 * slow))
    report = summed_up(rounds, {"Q8_0": 10**9}, busy=False)
    new = report.builds["Q8_0"]["new"]
    assert new.prefill == 75
    assert (new.prefill_to_avx2, new.decode_to_avx2, new.decode_to_llama_bench) == (1.5, 1.2, 1.5)
    assert new.share_of_bandwidth == pytest.approx(0.5)
    assert "| Q8_0 | new | 75.0 | 6.0 | 1.50 | 1.20 | 1.50 | 50% |" in table(report)


def test_a_prompt_is_read_and_answered_with_the_kernels_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PROMPT", 40), ("ANSWER", 4), ("REPEATS", 1)):
        monkeypatch.setattr(variants, name, value)
    decode, sizes = variants.LlamaModel.decode, []

    def noted(model: variants.LlamaModel, entries: Sequence[Entry]) -> None:
        sizes.append(len(entries))
        decode(model, entries)

    monkeypatch.setattr(variants.LlamaModel, "decode", noted)
    variants.measure(write_random(tmp_path / "random.gguf"), busy=True)
    assert sizes == [variants.SHORT, 40, variants.SHORT, 1, 1, 1, 1]

"""A quarter of a minute of what `make load` does for ten."""

import asyncio
import random
from pathlib import Path

import httpx
import psutil
import pytest
from servers import started_server
from tiny_gguf import write_random

from benchmarks.load import Report, Sample, Swaps, Wrong, ask, check, load, settings
from benchmarks.releases import SETTINGS, Releases
from pipeline.gguf.quantize import quantize
from serve.settings import Settings

QUESTIONS = [f"What is {number} times {number + 1}?" for number in range(12)]


def test_many_clients_get_what_each_gets_alone_through_swaps_or_are_told_that_the_queue_is_full(tmp_path: Path) -> None:
    models = tmp_path / "models"  # one more than stay loaded, so that they come and go
    models.mkdir()
    for seed, name in enumerate(("one", "two", "three")):
        quantize(write_random(tmp_path / "F32.gguf", seed, width=256), models / f"{name}.gguf", "Q8_0")
    releases = Releases.laid_out(tmp_path, models, models)
    limits = {"models": releases.link, "max_loaded_models": 2, "rate": 0, "queue": 8, "prompt_cache_mb": 1, **SETTINGS}
    with started_server(tmp_path / "log.txt", until="/readyz", **limits) as (url, server):
        asked = load(url, psutil.Process(server.pid), QUESTIONS, 150, 24, seconds=15, swaps=Swaps(releases, 3))
        report = asyncio.run(asked)
    assert report.failures == []
    assert report.swaps > 1
    assert all(report.outcomes[kind] for kind in ("stream", "whole", "hang up", "full")), report.outcomes


def test_the_server_under_load_takes_its_settings() -> None:
    taken = Settings.from_env(settings("models/gguf", 8080))
    assert (taken.models, taken.port, taken.max_loaded_models, taken.rate) == ("models/gguf", 8080, 8, 0)
    assert taken.prompt_cache_mb == 32


def test_growth_is_what_came_after_the_warm_up() -> None:
    sizes = [100] * 20 + [200] * 50 + [210] * 31
    report = Report(samples=[Sample(at, size, 10, 5) for at, size in enumerate(sizes)])
    assert report.memory == (200, 210)
    assert report.growth == pytest.approx(0.05)


def test_another_answer_than_alone_is_a_failure() -> None:
    check("7", "7")
    with pytest.raises(Wrong, match="'8' instead of '7'"):
        check("8", "7")


def test_a_stream_that_ends_before_its_reader_hangs_up_is_a_failure() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text='data: {"choices": [{"delta": {"content": "4"}}]}\n\ndata: [DONE]\n\n')

    async def hang_up(expected: str) -> str:
        body = {"model": "one-Q8_0", "temperature": 0.0}
        async with httpx.AsyncClient(base_url="http://server", transport=httpx.MockTransport(answer)) as client:
            return await ask(client, body, expected, "hang up", random.Random(0), report)

    report = Report()
    assert asyncio.run(hang_up("4")) == "hang up"
    assert asyncio.run(hang_up("4" + "2" * 1000)) == "failed"

"""What the benchmark of the serve image makes of what it has measured."""

from benchmarks import image


def report() -> image.Report:
    starts = [image.Start(1.0, 4.0), image.Start(2.0, 5.0), image.Start(9.0, 6.0)]
    parts = {f"part{number}": (20 - number) * 1_000_000 for number in range(12)}
    measured = {name: image.Measured(int(size), parts, [3.0, 9.0, 4.0], starts) for name, size in image.GOALS.items()}
    return image.Report("2026-11-30", "a CPU", 2, 0.1, "tiny", "all", measured)


def test_the_page_of_the_serve_image_has_medians_and_the_largest_parts() -> None:
    lines = image.page(report()).splitlines()
    assert "| MB, uncompressed |  | 400 (goal: 400) | 270 (goal: 270) |" in lines
    assert "| seconds of a build after a change of code | 20 | 4.0 | 4.0 |" in lines
    assert "| seconds to /readyz | 3 | 2.00 | 2.00 |" in lines
    assert "| seconds to the first text | 10 | 5.00 | 5.00 |" in lines
    assert lines[-1].startswith("What is in api, in MB: part0 20.0, part1 19.0, ")
    assert lines[-1].endswith("part9 11.0, the rest 19.0.")

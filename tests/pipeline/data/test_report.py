from pipeline.data.report import Lengths, split_report


def test_lengths_are_counted_by_role_between_the_bounds() -> None:
    conversations = [
        [{"role": "user", "content": "x" * 32}, {"role": "assistant", "content": "x" * 9000}],
        [{"role": "user", "content": "x" * 33}, {"role": "assistant", "content": "x"}],
    ]
    lengths = Lengths()
    lengths.add(conversations)
    histogram = lengths.report()
    assert list(histogram) == ["assistant", "user"]
    assert {label: count for label, count in histogram["user"].items() if count} == {"<= 32": 1, "<= 128": 1}
    assert {label: count for label, count in histogram["assistant"].items() if count} == {"<= 32": 1, "> 8192": 1}


def test_the_digest_of_a_split_follows_content_and_order() -> None:
    one, two = ([{"role": "user", "content": text}] for text in ("a", "é"))
    reports = [split_report(rows) for rows in ([one, two], [one, two], [two, one], [one])]
    assert reports[0] == reports[1]
    assert len({report["sha256"] for report in reports}) == 3
    assert [report["rows"] for report in reports] == [2, 2, 2, 1]

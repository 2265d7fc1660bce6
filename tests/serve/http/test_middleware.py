import httpx
import pytest

from serve.http.middleware import client


@pytest.mark.parametrize(
    ("address", "whom"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9%eth0", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_a_client_is_an_ipv4_address_or_a_network_of_ipv6(address: str, whom: str) -> None:
    assert client(address) == whom


def test_another_network_is_another_client() -> None:
    assert client("2001:db8:1:2::1") != client("2001:db8:1:3::1")


def test_the_page_s_events_are_passed_on_as_they_come(server: str) -> None:
    with httpx.stream("GET", f"{server}/gradio_api/heartbeat/x") as given:
        assert given.headers["X-Accel-Buffering"] == "no"
        assert next(given.iter_lines()) == "data: ALIVE"

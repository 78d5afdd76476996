"""Where a client connects to: addresses as people type them."""

import pytest

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.transports.client.client import WebSocketClient
from leibniz_voice.transports.client.opening import address_of


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("127.0.0.1:8004", "ws://127.0.0.1:8004/orchestrate"),
        ("http://host/", "ws://host/orchestrate"),
        ("wss://host/voice/orchestrate?session_id=other", "wss://host/voice/orchestrate"),
    ],
)
def test_addresses_are_understood_as_people_type_them(typed, address):
    assert address_of(typed, "me") == (address, "me")


def test_a_session_id_in_the_address_counts_where_none_is_given():
    assert address_of("ws://h?session_id=abc")[1] == "abc"
    assert address_of("ws://h")[1] != address_of("ws://h")[1]


@pytest.mark.parametrize(
    ("url", "session"), [("ftp://h", None), ("ws://", None), ("h:99999", None), ("h", "a b"), ("h", "")]
)
def test_a_wrong_address_or_session_id_is_refused(url, session):
    with pytest.raises(ConfigurationError):
        WebSocketClient(url, session_id=session)

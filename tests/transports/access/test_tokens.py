"""Tokens: what opens a session, once, and what does not."""

from __future__ import annotations

import asyncio
import string
from pathlib import Path

import pytest

from leibniz_voice.pipeline.errors import ConfigurationError, StoreError
from leibniz_voice.transports.access.token_gate import SpentTokens, TokenGate
from leibniz_voice.transports.access.token_key import Ticket, TokenKey, TokenRefused

SECRET = "0123456789abcdef0123456789abcdef"
KEY = TokenKey(SECRET)
NOW = 1_800_000_000.25
TOKEN = KEY.mint("demo", now=NOW, lifetime_s=60)


def accepted(token: str, session: str = "demo", now: float = NOW) -> bool:
    try:
        KEY.check(token, session, now=now)
    except TokenRefused:
        return False
    return True


def test_a_token_opens_its_session_until_it_expires() -> None:
    assert accepted(TOKEN)
    assert accepted(TOKEN, now=NOW + 59)
    assert not accepted(TOKEN, now=NOW + 61)


def test_no_token_is_good_one_second_past_its_expiry() -> None:
    expires = KEY.check(TOKEN, "demo", now=NOW).expires
    assert accepted(TOKEN, now=expires)
    assert not accepted(TOKEN, now=expires + 1)


def test_no_change_of_a_single_byte_is_accepted() -> None:
    changed = [
        TOKEN[:at] + chr(byte) + TOKEN[at + 1 :]
        for at in range(len(TOKEN))
        for byte in range(256)
        if chr(byte) != TOKEN[at]
    ]
    assert len(changed) == len(TOKEN) * 255
    assert not any(map(accepted, changed))


def test_no_truncation_and_no_addition_is_accepted() -> None:
    shorter = [TOKEN[:end] for end in range(len(TOKEN))] + [TOKEN[start:] for start in range(1, len(TOKEN))]
    longer = [TOKEN + letter for letter in string.printable] + [letter + TOKEN for letter in string.printable]
    assert not any(map(accepted, shorter + longer))


def test_no_token_of_another_session_or_secret_is_accepted() -> None:
    assert not accepted(TOKEN, "demo2")
    assert not accepted(TOKEN, "dem")
    assert not accepted(TokenKey(SECRET[::-1]).mint("demo", now=NOW))


@pytest.mark.parametrize("session", ["", "a.b", "x" * 65, "é", "a b"])
def test_a_token_is_made_for_session_ids_only(session: str) -> None:
    with pytest.raises(ConfigurationError):
        KEY.mint(session, now=NOW)


def test_a_short_secret_is_refused_and_no_secret_is_shown() -> None:
    with pytest.raises(ConfigurationError, match="31 bytes") as refused:
        TokenKey("x" * 31)
    assert "xxx" not in str(refused.value)
    assert SECRET not in repr(KEY)


def test_every_token_fits_a_header_and_a_subprotocol() -> None:
    assert set(TOKEN) <= set(string.ascii_letters + string.digits + "._-")
    assert len(KEY.mint("x" * 64, now=NOW)) <= 256


class Ledger:
    """A store that several workers share."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.is_away = False

    async def spend(self, name: str, ttl_s: float) -> bool:
        if self.is_away:
            raise StoreError("away")
        is_new = name not in self.names
        self.names.add(name)
        return is_new


async def is_taken(spent: SpentTokens, ticket: Ticket) -> bool:
    try:
        await spent.take(ticket)
    except TokenRefused:
        return False
    return True


def test_a_token_is_used_once_at_whichever_worker(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger()
        for number, workers in enumerate(
            (
                [SpentTokens(ledger=ledger), SpentTokens(ledger=ledger)],
                [SpentTokens(folder=tmp_path), SpentTokens(folder=tmp_path)],
            )
        ):
            ticket = Ticket(f"{number:032x}", int(NOW) + 10**9)
            assert [await is_taken(worker, ticket) for worker in workers * 2] == [True, False, False, False]

    asyncio.run(main())


def test_of_a_token_shown_many_times_at_once_one_is_taken() -> None:
    async def main() -> None:
        gate = TokenGate(KEY, spent=SpentTokens(ledger=Ledger()), clock=lambda: NOW)
        results = await asyncio.gather(*(gate.admit(TOKEN, "demo") for _ in range(50)), return_exceptions=True)
        assert [result for result in results if not isinstance(result, TokenRefused)] == [None]

    asyncio.run(main())


def test_without_the_store_a_process_still_takes_a_token_once() -> None:
    async def main() -> None:
        ledger = Ledger()
        ledger.is_away = True
        spent = SpentTokens(ledger=ledger)
        ticket = Ticket("0" * 32, int(NOW) + 10**9)
        assert [await is_taken(spent, ticket) for _ in range(2)] == [True, False]

    asyncio.run(main())


def test_what_is_remembered_of_used_tokens_goes_when_they_expire() -> None:
    async def main() -> None:
        now = NOW
        spent = SpentTokens(clock=lambda: now)
        for number in range(1000):
            await spent.take(Ticket(f"{number:032x}", int(now) + 60))
        now += 200
        await spent.take(Ticket("f" * 32, int(now) + 60))
        assert len(spent) == 1

    asyncio.run(main())

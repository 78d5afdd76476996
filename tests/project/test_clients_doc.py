"""What docs/clients.md shows is what runs."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from websockets.asyncio.client import connect

from tests.support import ROOT
from tests.support.serving import SECRET, bot, served
from tests.transports.dialects.test_twilio import CALL, Call, address, encode_mulaw, loudest, needs_speech, spoken

ECHO, ASSISTANT = bot("echo.py"), bot("assistant.py")
TEXT = (ROOT / "docs" / "clients.md").read_text()
WEBHOOK, CLIENT = re.findall(r"```python\n(.*?)```", TEXT, re.S)
AUTH = "not twilio's own"

pytestmark = pytest.mark.slow


def signature(url: str, form: dict[str, str]) -> str:
    signed = (url + "".join(name + value for name, value in sorted(form.items()))).encode()
    return base64.b64encode(hmac.new(AUTH.encode(), signed, "sha1").digest()).decode()


def test_the_webhook_gives_twilio_a_token_that_opens_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", AUTH)
    monkeypatch.setenv("LEIBNIZ_SECRET", SECRET)
    names: dict[str, Any] = {}
    exec(WEBHOOK, names)

    async def main() -> None:
        form = {"CallSid": CALL, "From": "+15550100", "To": "+15550101"}
        async with TestServer(names["app"]) as hook, ClientSession() as web:
            url = hook.make_url("/voice")
            async with web.post(url, data=form, headers={"X-Twilio-Signature": "forged"}) as response:
                assert response.status == 403
            headers = {"X-Twilio-Signature": signature(names["HOOK"], form)}
            async with web.post(url, data=form, headers=headers) as response:
                twiml = await response.text()
        (token,) = re.findall(r'<Parameter name="token" value="([^"]+)"/>', twiml)
        async with (
            served(ECHO.build, secret=SECRET) as server,
            connect(address(server)) as socket,
        ):
            call = Call(socket)
            await call.start(token=token)
            call.say(encode_mulaw(b"\x00\x20" * 8000))
            await call.until(lambda: loudest(bytes(call.heard)) > 1000)
            await call.stop()

    asyncio.run(main())


@needs_speech
def test_the_python_client_asks_and_hears(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(CLIENT, names)
    from leibniz_voice.transports.dialects.mulaw import decode_mulaw
    from leibniz_voice.transports.playout.resampler import Resampler

    question = Resampler(8000, 16000)(decode_mulaw(spoken("what are your opening hours", tmp_path)))

    async def main() -> bytes:
        async with served(ASSISTANT.build) as server:
            heard = await names["ask"](question, server.address)
        return heard

    heard = asyncio.run(main())
    assert int(np.abs(np.frombuffer(heard, np.int16).astype(int)).max()) > 3000, "the answer"

"""Every error this library raises, in one tree.

LeibnizError
 +-- ConfigurationError     a value the caller gave is wrong (also a ValueError)
 |    +-- PipelineOrderError    processors in an order that cannot work
 +-- TransitionError        the turn machine was fed an event its state refuses
 +-- ServiceError           a service (STT, TTS, intent, retrieval) failed
 |    +-- WorkerCrashed         an embedded voice or recogniser process died
 +-- StoreError             the state store could not be read or written
 |    +-- DamagedSnapshot       a stored conversation that cannot be read (pipeline/conversation/snapshot.py)
 |    +-- OwnershipLost         another process has claimed the session
 +-- SessionFailed          a conversation's pipeline could not be built or started (pipeline/session.py)
 +-- ConnectionFailed       no bot answers, or it refuses the client (transports/client/opening.py)
 +-- RecordingError         a recorded conversation that cannot be read (lab/recording/recording.py)
 +-- ProtocolError          a client's message breaks the protocol

Errors of other libraries are turned into one of these at the border.
"""

from __future__ import annotations


class LeibnizError(Exception):
    """Base of all errors raised on purpose by this library."""


class ConfigurationError(LeibnizError, ValueError):
    """A setting is out of range or missing; the message names the value and the fix."""


class PipelineOrderError(ConfigurationError):
    """The processors cannot work in this order; the message says why."""


class TransitionError(LeibnizError):
    """The turn machine refused an event; its state is unchanged."""


class ServiceError(LeibnizError):
    """A speech, intent or retrieval service failed."""


class WorkerCrashed(ServiceError):  # noqa: N818 - it is an event report, and reads as one
    """An embedded worker process died; the request it held is lost, the next one is served."""


class StoreError(LeibnizError):
    """The state store did not answer or answered nonsense."""


class OwnershipLost(StoreError):  # noqa: N818 - it is an event report, and reads as one
    """A newer owner has claimed this session; stop speaking and close."""


class ProtocolError(LeibnizError):
    """A client message was refused. `code` is the protocol's error code, `message` is for the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code  # one of the codes listed in docs/protocol.md
        self.message = message  # one sentence, safe to show to a client

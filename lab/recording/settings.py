"""A bot's processors by name, and their settings: `vad.hangover_ms`, `gate.confirm_ms`; told, and changed.

A name is a stage and a keyword of its processor's constructor, or of the policy that one of them holds. To change one,
the processor is made again with what it was made with and the new value, so its own checks apply.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipecat.pipeline.pipeline import Pipeline as PipecatPipeline
from pipecat.pipeline.pipeline import PipelineSink, PipelineSource
from pipecat.processors.frame_processor import FrameProcessor

from ...pipeline.engine.parallel import Parallel
from ...pipeline.engine.processor import Processor
from ...pipeline.errors import ConfigurationError
from ...pipeline.interruption.policy import BargeInPolicy
from ...pipeline.listening.endpointing import Endpointing
from ...pipeline.listening.utterance import Utterance
from ...pipeline.pipeline import Pipeline
from ...pipeline.reconfigurable import Reconfigurable
from ...pipeline.reply.reply_watch import ReplyBounds
from .events import RecordingError

PARTS: dict[str, Callable[..., Any]] = {  # keyword of a constructor -> what is made where none was given
    "policy": BargeInPolicy,
    "utterance": Utterance,
    "bounds": ReplyBounds,
    "endpointing": Endpointing,
}
ALIASES = {"gate.onset_ms": "gate.confirm_ms"}  # the gate's onset is what confirms
Value = bool | int | float | str
_SECRET = re.compile(  # names of what stays untold
    "key|token|secret|password|credential|url|dsn|(?:^|_)(?:auth|authorization|pass|passwd)(?:_|$)", re.IGNORECASE
)
_CREDENTIAL = re.compile(  # and values: a URL with a user, a header, a URL with a key in its query
    r"://\S*@|(?:^|:)\s*(?:bearer|basic)\s+\S+\s*$|[?&][^=&\s]*(?:key|token|secret|pass|auth|sig)[^=&\s]*=",
    re.IGNORECASE,
)


def chain_of(pipeline: PipecatPipeline) -> list[FrameProcessor]:
    """Return its processors in order, ends that were given and those of pipelines inside it in their places.

    Pipelines themselves are left out. What stands in branches of our `Parallel` is its own: their answers are told.
    """
    found: list[FrameProcessor] = []
    for processor in _links_of(pipeline):
        found += chain_of(processor) if isinstance(processor, PipecatPipeline) else [processor, *_inside(processor)]
    return found


def _inside(processor: FrameProcessor) -> list[FrameProcessor]:
    """What stands in Pipecat's parallel pipelines and switchers."""
    found: list[FrameProcessor] = []
    for inner in [] if isinstance(processor, Parallel) else processor.processors:
        found += chain_of(inner) if isinstance(inner, PipecatPipeline) else [inner]
    return found


def _links_of(pipeline: PipecatPipeline) -> list[FrameProcessor]:
    if isinstance(pipeline, Pipeline):
        source, sink = pipeline.ends
        return [each for each in (source, *pipeline.processors, sink) if each is not None]
    return [each for each in pipeline.processors if not isinstance(each, PipelineSource | PipelineSink)]


def with_parts(pipeline: Pipeline, parts: Mapping[int, FrameProcessor]) -> Pipeline:
    """Return the pipeline made again, with `parts` in place of the processors in its chain that have these ids.

    Raises `RecordingError` for one that stands where it cannot be replaced.
    """
    source, sink = (None if end is None else _in_place(end, parts) for end in pipeline.ends)
    chain = [_in_place(each, parts) for each in pipeline.processors]
    return Pipeline(chain, source=source, sink=sink, trust_late_audio=True)


def _in_place(processor: FrameProcessor, parts: Mapping[int, FrameProcessor]) -> FrameProcessor:
    is_pipeline = isinstance(processor, PipecatPipeline)
    inside = chain_of(processor) if is_pipeline else _inside(processor)
    if all(parts.get(id(each), each) is each for each in inside):
        return parts.get(id(processor), processor)
    if isinstance(processor, Pipeline):
        return with_parts(processor, parts)
    if is_pipeline:
        return PipecatPipeline([_in_place(each, parts) for each in _links_of(processor)])
    raise RecordingError(
        f"a processor that a replay replaces stands in a {type(processor).__name__}, where it cannot be replaced; "
        "let it be asked again, or put it into the chain itself"
    )


def names_of(processors: Sequence[FrameProcessor]) -> list[str]:
    """Return what each processor is called in recordings: its class, and a number from the second of a kind on."""
    names: list[str] = []
    for processor in processors:
        kind = vars(processor).get("stands_for")  # not asked of a `__getattr__`, which may say anything
        kind = kind if isinstance(kind, str) else type(processor).__name__
        count = sum(name.split("#")[0] == kind for name in names)
        names.append(f"{kind}#{count + 1}" if count else kind)
    return names


def settings_of(processors: Sequence[FrameProcessor]) -> dict[str, dict[str, Any]]:
    """Return the settings of each processor of ours, by its name in recordings; those that are plain values."""
    found: dict[str, dict[str, Any]] = {}
    for name, processor in zip(names_of(processors), processors, strict=True):
        if isinstance(processor, Processor):
            with suppress(Exception):  # one whose constructor cannot be read has none that could be changed
                found[name] = {key: value for key, (_, value) in _settings(processor).items()}
    return found


def _settings(processor: Processor) -> dict[str, tuple[str | None, Any]]:
    """Setting -> (the part that it belongs to, its value)."""
    found: dict[str, tuple[str | None, Any]] = {}
    given = processor.given
    for name, parameter in _keywords(type(processor)).items():
        value = given.get(name, parameter.default)
        if name in PARTS and (value is not None or parameter.default is None):  # a part left out has no settings
            found |= {key: (name, each) for key, each in _part_settings(name, value).items()}
        elif isinstance(value, Value) or (value is None and _is_plain(parameter)):
            found[name] = (None, value)
    return {name: each for name, each in found.items() if name != "name" and not _is_secret(name, each[1])}


def _is_secret(name: str, value: Any) -> bool:
    return bool(_SECRET.search(name) or (isinstance(value, str) and _CREDENTIAL.search(value)))


def _is_plain(parameter: inspect.Parameter) -> bool:
    return any(word in str(parameter.annotation) for word in ("float", "int", "str", "bool"))


def _keywords(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _part_settings(name: str, part: Any) -> dict[str, Any]:
    make = PARTS[name] if part is None or part is inspect.Parameter.empty else type(part)
    given = _given_to(part)
    values = {key: given.get(key, parameter.default) for key, parameter in _keywords(make).items()}
    return {key: value for key, value in values.items() if isinstance(value, Value)}


def _given_to(part: Any) -> dict[str, Any]:
    if part is None:
        return {}
    if isinstance(part, Reconfigurable):
        return part.given
    if not dataclasses.is_dataclass(part):
        return {}  # somebody's own: what its constructor's defaults say
    return {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}


def parse(texts: Sequence[str]) -> dict[str, str]:
    """Split `NAME=VALUE` texts. Raises `ConfigurationError`."""
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or "." not in name or not value:
            raise ConfigurationError(f"{text!r} is no setting; write NAME=VALUE, such as vad.hangover_ms=150")
        changes[ALIASES.get(name.strip(), name.strip())] = value.strip()
    return changes


def changed(processors: Sequence[FrameProcessor], changes: Mapping[str, str]) -> list[FrameProcessor]:
    """Return the chain with some settings changed; before its processors are set up. Their order does not matter.

    Raises `ConfigurationError` for a name that there is not, telling those there are, and for a value out of range.
    """
    chain = list(processors)
    mine: dict[int, dict[str, str]] = {}  # place in the chain -> key -> new value
    for name, text in changes.items():
        stage, _, key = name.partition(".")
        places = [at for at, each in enumerate(chain) if isinstance(each, Processor) and _stage_of(each) == stage]
        places = [at for at in places if key in _settings(chain[at])]  # type: ignore[arg-type] # a Processor, as said
        if not places:
            raise ConfigurationError(_no_such(name, stage, chain))
        for at in places:
            mine.setdefault(at, {})[key] = text
    for at, texts in mine.items():
        chain[at] = _made_again(chain[at], texts)  # type: ignore[arg-type]
    return chain


def _made_again(processor: Processor, texts: Mapping[str, str]) -> Processor:
    stage, settings, given = _stage_of(processor), _settings(processor), processor.given
    parts: dict[str, dict[str, Value]] = {}
    for key, text in texts.items():
        part_name, old = settings[key]
        into = given if part_name is None else parts.setdefault(part_name, {})
        into[key] = _value(f"{stage}.{key}", text, old)
    try:
        for name, values in parts.items():
            part = given.get(name)
            make = PARTS[name] if part is None else type(part)
            given[name] = make(**{**_given_to(part), **values})
        return type(processor)(**given)
    except ConfigurationError as error:
        said = " ".join(f"{stage}.{key}={text}" for key, text in texts.items())
        raise ConfigurationError(f"{said}: {error}") from error


def _value(name: str, text: str, old: Any) -> Value:
    """Read a value of the old one's type."""
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[text.lower()]
        if isinstance(old, str):
            return text
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("not finite")
        return int(number) if isinstance(old, int) and number.is_integer() else number
    except (KeyError, ValueError):
        kind = "true or false" if isinstance(old, bool) else "a number"
        raise ConfigurationError(f"{name} is {text!r}; give {kind}, such as {old}") from None


def _stage_of(processor: Processor) -> str:
    return processor.stage.name.lower() if processor.stage is not None else type(processor).__name__.lower()


def _no_such(name: str, stage: str, chain: Sequence[FrameProcessor]) -> str:
    ours = [each for each in chain if isinstance(each, Processor)]
    keys = sorted({f"{stage}.{key}" for each in ours if _stage_of(each) == stage for key in _settings(each)})
    if keys:
        return f"there is no setting {name}; there are {', '.join(keys)}"
    stages = sorted({_stage_of(each) for each in ours if _settings(each)})
    return f"there is no setting {name}; this bot has settings of {', '.join(stages)}, such as vad.hangover_ms"

"""The smallest bot: it says back what it hears.

leibniz serve bots/echo.py
"""

from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import Pipeline, Processor, Session, consumes


class Echo(Processor):
    """Plays the microphone back.

    Consumes: `InputAudioRawFrame`.
    Emits: `OutputAudioRawFrame`.
    On barge-in: nothing; there is no reply to cut.
    """

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame: InputAudioRawFrame, direction: FrameDirection) -> None:
        await self.push_frame(OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels))


def build(session: Session) -> Pipeline:
    """Return the pipeline of one conversation."""
    return Pipeline([session.input, Echo(), session.output])


if __name__ == "__main__":
    from leibniz_voice.bots.cli.main import run_file

    run_file(__file__)

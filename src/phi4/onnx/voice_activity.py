"""A model of voice activity as the judge of frames: an ONNX file in the interface of Silero VAD 5 and 6.

    judge = VoiceActivityModel("silero_vad.onnx")
    regions = find_speech(features, judge=judge, samples=samples)

It hears windows of 512 samples (32 ms) one after the other, each behind the last 64 samples of the one
before, and carries a state of its own from one to the next. The file is the user's; none comes with this
package. Left out: other interfaces (versions 3 and 4 have inputs `h` and `c`), and rates other than 16 kHz.

Source: github.com/snakers4/silero-vad, its issue 771 for the 64 samples, the defaults of its
`get_speech_timestamps` for both thresholds and the shortest stretch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx.serving.session import SessionChoice, open_session, runtime_errors
from phi4.processing.mel import SAMPLE_RATE_HZ
from phi4.processing.speech_signs import FRAMES_PER_S, Evidence
from phi4.shapes import FloatArray

CONTEXT_SAMPLES = 64
WINDOW_SAMPLES = 512
_STATE_SHAPE = (2, 1, 128)
_RATE = np.array(SAMPLE_RATE_HZ, np.int64)
_FRAME_CENTRE = 200
"""Samples from the beginning of a frame of 25 ms to its middle."""
_INPUTS = {"input": "tensor(float)", "state": "tensor(float)", "sr": "tensor(int64)"}
_EXPECTED = (
    "a voice-activity model has the interface of Silero VAD 5 and 6: inputs input float32 [B, 576], state "
    "float32 [2, B, 128] and sr int64; outputs the probability of speech [B, 1] and the next state"
)


class VoiceActivityModel:
    """A `SpeechJudge` that asks a model for the probability of speech in each window.

    Args:
        path: The ONNX file.
        onset: Probability at which speech begins.
        hold: Probability from which it goes on.
        least_s: Shortest stretch, gaps bridged, that is speech.

    Raises:
        InvalidArtifact: The file is missing, no ONNX graph, or one with another interface.
    """

    def __init__(
        self, path: str | Path, *, onset: float = 0.5, hold: float = 0.35, least_s: float = 0.25
    ) -> None:
        self._path = Path(path)
        self._onset, self._hold, self._least_s = onset, hold, least_s
        if not self._path.is_file():
            raise InvalidArtifact(f"{path}: no such file; {_EXPECTED}")
        self._session = open_session(self._path, SessionChoice(), _EXPECTED)
        self._check_interface()

    def judge(self, features: FloatArray, samples: FloatArray | None) -> Evidence:
        """Judge by the samples; a frame is as likely speech as the window its middle lies in.

        Raises:
            InvalidRequest: There are no samples.
            InvalidArtifact: The model cannot be run on, or what it answers is no probability.
        """
        if samples is None:
            raise InvalidRequest(
                "a voice-activity model hears samples, and this recording was given as features; give the "
                "recording itself"
            )
        hop = SAMPLE_RATE_HZ // FRAMES_PER_S
        middles = hop * np.arange(len(features)) + _FRAME_CENTRE
        level = self.probabilities(samples)[middles // WINDOW_SAMPLES]
        every = np.ones(len(level), np.bool_)
        return Evidence(level, self._onset, self._hold, proof=every, least_s=self._least_s)

    def probabilities(self, samples: FloatArray) -> FloatArray:
        """How likely somebody speaks in each window of a recording, `[ceil(S / 512)]`.

        Args:
            samples: `[S]` at 16 kHz in [-1, 1]; the last window is filled up with silence.

        Raises:
            InvalidArtifact: See `judge`.
        """
        found = np.empty(-(-len(samples) // WINDOW_SAMPLES), np.float32)
        heard = np.zeros((1, CONTEXT_SAMPLES + WINDOW_SAMPLES), np.float32)
        state = np.zeros(_STATE_SHAPE, np.float32)
        for at in range(len(found)):
            new = samples[at * WINDOW_SAMPLES : (at + 1) * WINDOW_SAMPLES]
            heard[:, :CONTEXT_SAMPLES] = heard[:, -CONTEXT_SAMPLES:]
            heard[:, CONTEXT_SAMPLES:] = 0.0
            heard[0, CONTEXT_SAMPLES : CONTEXT_SAMPLES + len(new)] = new
            chance, state = self._run(heard, state)
            found[at] = chance[0, 0]
        if not ((found >= 0.0) & (found <= 1.0)).all():
            raise InvalidArtifact(
                f"{self._path}: gave {found.min()} to {found.max()} for probabilities; {_EXPECTED}"
            )
        return found

    def _run(self, heard: FloatArray, state: FloatArray) -> list[FloatArray]:
        with runtime_errors(str(self._path), _EXPECTED):
            answers: list[FloatArray] = self._session.run(None, {"input": heard, "state": state, "sr": _RATE})
        return answers

    def _check_interface(self) -> None:
        """Compare names and types, then hear a window of silence: many files leave their shapes open."""
        inputs = {one.name: one.type for one in self._session.get_inputs()}
        if inputs != _INPUTS:
            told = ", ".join(f"{name} {kind}" for name, kind in inputs.items())
            raise InvalidArtifact(f"{self._path}: its inputs are {told}; {_EXPECTED}")
        silence = np.zeros((1, CONTEXT_SAMPLES + WINDOW_SAMPLES), np.float32)
        answers = self._run(silence, np.zeros(_STATE_SHAPE, np.float32))
        types = [one.type for one in self._session.get_outputs()]
        shapes = [np.shape(one) for one in answers]
        if types != ["tensor(float)"] * 2 or shapes != [(1, 1), _STATE_SHAPE]:
            told = ", ".join(f"{kind} {list(shape)}" for kind, shape in zip(types, shapes, strict=True))
            raise InvalidArtifact(f"{self._path}: its outputs are {told}; {_EXPECTED}")

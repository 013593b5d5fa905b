"""`generate(task, split, index)`: the one door to every record of the small world.

Pure: the same arguments give the same record in every process and on every run, so a training run can
start again at any index and workers keep no state. Records depend on the versions of numpy, Pillow,
espeak-ng and the fonts only as far as these draw the same pixels and samples.
"""

from __future__ import annotations

from collections.abc import Callable

from phi4.data.records import Record, Split, check_split
from phi4.data.world.charts import chart_qa, spoken_chart_qa
from phi4.data.world.chat import chat
from phi4.data.world.commands import command, spoken_command
from phi4.data.world.documents import text
from phi4.data.world.pages import page
from phi4.data.world.read_text import read_text
from phi4.data.world.spoken import speech_qa, speech_transcribe
from phi4.data.world.sums import sums
from phi4.data.world.typed import number_qa, table_qa
from phi4.errors import InvalidRequest

Generator = Callable[[Split, int, int, float], Record]
TASKS: dict[str, Generator] = {
    "speech_transcribe": speech_transcribe,
    "speech_qa": speech_qa,
    "read_text": read_text,
    "page": page,
    "chart_qa": chart_qa,
    "spoken_chart_qa": spoken_chart_qa,
    "command": command,
    "spoken_command": spoken_command,
    "sums": sums,
    "table_qa": table_qa,
    "number_qa": number_qa,
    "text": text,
    "chat": chat,
}
"""Name of each task to its generator (split, seed, index, difficulty) -> Record."""


def generate(task: str, split: str, index: int, *, seed: int = 0, difficulty: float = 1.0) -> Record:
    """Returns record number `index` of an endless, reproducible sequence.

    Args:
        task: A key of `TASKS`.
        split: "train", "test" or "examples".
        index: Position, from 0.
        seed: Seed of the whole data set; held-out content stays held out for every seed.
        difficulty: 0 to 1, for a curriculum; evaluation uses 1. Ignored by speech_qa, number_qa,
            command, spoken_command and chat.

    Raises:
        InvalidRequest: An unknown task or split, a negative index, or a difficulty outside [0, 1].
    """
    if task not in TASKS:
        raise InvalidRequest(f"unknown task {task!r}; valid are {', '.join(TASKS)}")
    if index < 0 or not 0.0 <= difficulty <= 1.0:
        raise InvalidRequest(f"index {index} must be 0 or more and difficulty {difficulty} between 0 and 1")
    return TASKS[task](check_split(split), seed, index, difficulty)

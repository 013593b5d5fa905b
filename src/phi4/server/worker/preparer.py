"""The program of a preparer: one job at a time, from its socket to its socket.

It may be killed at any moment, and is, when a job takes too long; a grammar that takes too long to compile
ends it, too. The memory it may have is limited by the system, so a job that would take more fails here and
nowhere else.
"""

from __future__ import annotations

import logging
import resource
from pathlib import Path

from phi4.engine.structured.mortal import MortalCompiler
from phi4.errors import Phi4Error
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.registry import open_judge, open_model
from phi4.server.failures import PreparationFailed
from phi4.server.faults import places_of
from phi4.server.worker.frames import Done, Failure, Job, NotStarted, PreparerReady, StartPreparer, failure_of
from phi4.server.worker.inbox import Inbox, connect
from phi4.server.worker.preparing import Preparing

_log = logging.getLogger(__name__)
_STATM = Path("/proc/self/statm")


def main(descriptor: int) -> None:
    """Serve jobs until the server goes."""
    channel = connect(descriptor, "preparer")
    inbox = Inbox(channel)
    inbox.start()
    start = inbox.get()
    assert isinstance(start, StartPreparer), "a preparer is told first what to prepare for"
    try:
        preparing = open_preparing(start)
    except Phi4Error as error:
        channel.send(NotStarted(failure_of(error)))
        return
    limit_memory(start.settings.preparer_memory_bytes)
    channel.send(PreparerReady())
    while True:
        job = inbox.get()
        assert isinstance(job, Job), "a preparer gets nothing but jobs"
        channel.send(run(preparing, job))


def open_preparing(start: StartPreparer) -> Preparing:
    """Read config and tokenizer of the model the engine has opened, and the operator's voice-activity model.

    Raises:
        InvalidArtifact: Its files have changed since; or there is no such model in the operator's file.
        MissingExtra: A library is not installed.
    """
    files = open_model(start.card.runner, Path(start.path), start.settings.modalities)
    tokenizer = Phi4Tokenizer.load(files.path, files.config.decoder.vocab_size)
    processor = Processor(
        files.config, tokenizer, limits=start.settings.media_limits, allow_remote=False, allow_files=False
    )
    compiler = MortalCompiler(tokenizer, start.card.vocab_size)
    compiler.warm_up()
    judge = open_judge(start.settings.voice_activity)
    return Preparing(processor, compiler, start.settings, start.card.max_context_tokens, judge)


def run(preparing: Preparing, job: Job) -> Done:
    """Do a job; whatever happens becomes an answer, short of the end of this process."""
    try:
        return Done(preparing.prepare(job.request))
    except Phi4Error as error:
        return Done(failure=failure_of(error))
    except MemoryError:
        return Done(
            failure=Failure(
                PreparationFailed.__name__,
                "the request takes more memory than one may have; send less or smaller",
            )
        )
    except Exception as error:
        _log.error("a job failed: %s", places_of(error))
        return Done(failure=failure_of(error))


def limit_memory(more_bytes: int) -> None:
    """Let this process grow by so much and no more; only where the system tells how large it is."""
    if _STATM.exists():
        pages = int(_STATM.read_text().split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

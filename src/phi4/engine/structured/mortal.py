"""Compiling grammars in a process that may die.

Sizes, nesting and a budget of work bound what almost any grammar costs. Not all: an intersection of twenty
patterns takes the native compiler longer than anybody waits, and nothing can interrupt it. So a server
compiles what a client sent in such a process first, and in the engine's process only what came out of that.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.structured.constraint import Constraint
from phi4.engine.structured.spec import GrammarSpec
from phi4.engine.structured.tool_grammar import ToolCallGrammar

COMPILE_CPU_S = 2.0


class MortalCompiler(GrammarCompiler):
    """A compiler whose process ends when one grammar takes more than `COMPILE_CPU_S` of processor time."""

    def compile(self, spec: GrammarSpec) -> Constraint | ToolCallGrammar:
        """As `GrammarCompiler.compile`, from the main thread only."""
        self.warm_up()
        with dying_after(COMPILE_CPU_S):
            return super().compile(spec)


@contextmanager
def dying_after(cpu_s: float) -> Iterator[None]:
    """Let the system end this process when the body takes more than `cpu_s` of processor time, all threads.

    From the main thread only, as it alone may set what a signal does.
    """
    former = signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, former)

"""Opening ONNX Runtime sessions: provider, threads, options, and its errors as ours.

Several sessions live side by side (decoder, head, encoders), each with threads of its own, and only one
computes at a time. Their threads sleep between operators instead of spinning: spinning ones hold the cores
that the next session, or another program, needs (beside a busy program nano's prompts took twice as long).
A graph that was prepared for this machine (`prepared.py`) is opened in place of the package's own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime

from phi4.errors import InvalidArtifact, InvalidRequest, OutOfMemory
from phi4.onnx.machine.threads import thread_count
from phi4.onnx.package import OnnxPackage
from phi4.onnx.package.parts import plain_form
from phi4.onnx.serving.prepared import Preparation

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"
_ELSEWHERE = "AzureExecutionProvider"  # in every build; sends data to a server, computes nothing here
_OPENVINO = "OpenVINOExecutionProvider"
_SILENT, _WARNING = 4, 2  # the second is ONNX Runtime's default
_MEMORY_WORDS = ("failed to allocate memory", "bad_alloc", "bad allocation", "out of memory")
_BRINGS = {
    "coreml": "onnxruntime (on macOS)",
    "cuda": "onnxruntime-gpu",
    "dml": "onnxruntime-directml",
    "migraphx": "onnxruntime-migraphx",
    "openvino": "onnxruntime-openvino",
    "qnn": "onnxruntime-qnn",
    "tensorrt": "onnxruntime-gpu",
}
"""Provider -> the package on PyPI that brings it, in place of `onnxruntime`."""
_ALIASES = {"directml": "dml", "trt": "tensorrt"}
_FEWER = "run fewer or shorter requests, or a package of fewer bits"
_AGAIN = "export the model again"
_MIN_MAPPED_BYTES = 1024
"""Weights of so many bytes stand in the data file of a stored graph, smaller ones in the graph."""
_ONE_THREAD_BYTES = 32 * 2**20
_LOGGER = threading.Lock()
"""Held by whoever changes ONNX Runtime's logger, of which a process has one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionChoice:
    """Where and with how many threads sessions compute.

    Attributes:
        provider: ONNX Runtime's name of the execution provider.
        threads: Most threads of one session.
        prepared: Graphs to open in place of the package's own, as far as it has them; None = no others.
        strict: One of those that cannot be opened is an error, not passed over.
    """

    provider: str = CPU
    threads: int = 1
    prepared: Preparation | None = None
    strict: bool = False

    @property
    def device(self) -> str:
        """The provider as a user writes it: "cpu", "openvino"."""
        return _short(self.provider)

    def step_by_step(self, weight_bytes: int) -> SessionChoice:
        """The same for a graph that computes token after token.

        With small weights its operators take ten microseconds each, and to wake another thread takes longer:
        such a graph gets one.
        """
        return replace(self, threads=1) if weight_bytes < _ONE_THREAD_BYTES else self

    def own_bytes(self, package: OnnxPackage, name: str) -> int:
        """Memory of its own that a graph's weights take once opened: mapped ones take none."""
        stored = () if self.prepared is None else self.prepared.graphs
        return 0 if {name, plain_form(name)} & set(stored) else package.loaded_bytes(name)


def choose_session(provider: str | None = None, threads: int | None = None) -> SessionChoice:
    """Judge what the caller wants against what is installed.

    Args:
        provider: "cpu" (also None), or another provider of the installed ONNX Runtime, such as "openvino".
        threads: See `thread_count`.

    Raises:
        InvalidRequest: No such provider here, or an impossible number of threads.
    """
    names = [name for name in onnxruntime.get_available_providers() if name != _ELSEWHERE]
    known = {_short(name): name for name in names}
    asked = _short(provider or CPU)
    asked = _ALIASES.get(asked, asked)
    if asked not in known:
        raise InvalidRequest(
            f"provider {provider!r}: the installed ONNX Runtime {onnxruntime.__version__} has "
            f"{', '.join(sorted(known))}; {_advice(asked)}"
        )
    return SessionChoice(known[asked], thread_count(threads))


def _advice(asked: str) -> str:
    """What to do for a provider that is not there."""
    package = _BRINGS.get(asked)
    if package is None:
        return f"choose one of them; other builds of ONNX Runtime bring {', '.join(sorted(_BRINGS))}"
    return (
        f"choose one of them, or install the package that brings it in place of this one: pip uninstall "
        f"onnxruntime, then pip install {package}"
    )


def _short(provider: str) -> str:
    return provider.lower().removesuffix(_SUFFIX.lower())


def open_session(path: Path, choice: SessionChoice, advice: str = _AGAIN) -> onnxruntime.InferenceSession:
    """Open a graph whose files have been checked (`phi4.onnx.package`), or what was prepared of it.

    Args:
        path: The graph.
        choice: Where it computes.
        advice: See `runtime_errors`.

    Raises:
        InvalidArtifact: ONNX Runtime cannot run it.
        InvalidRequest: The provider is installed but does not start.
        OutOfMemory: Its weights do not fit.
    """
    stored = None if choice.prepared is None else choice.prepared.graph(path)
    if stored is not None:
        try:
            return _open(stored, choice, _options(choice.threads, optimise=False))
        except InvalidArtifact as problem:
            if choice.strict:
                raise
            _log.warning(
                "%s is opened in place of what was prepared of it, which is slower: %s", path, problem
            )
    return _open(path, choice, _options(choice.threads), advice)


def store_session(path: Path, target: Path) -> None:
    """Open a graph and store it as it is then: optimised, its weights also as kernels want them.

    Both forms of a weight are stored: ONNX Runtime arranges the first whenever it opens the graph, one weight
    after the other, and takes the second, which it maps, when the results are equal.

    Args:
        path: The graph.
        target: The graph to write; its weights go into a file beside it, if there are any of some size.

    Raises:
        InvalidArtifact: ONNX Runtime cannot run it.
        OutOfMemory: Its weights do not fit.
    """
    options = _options(thread_count())
    options.optimized_model_filepath = str(target)
    for name, value in (
        ("session.optimized_model_external_initializers_file_name", f"{target.name}.data"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(_MIN_MAPPED_BYTES)),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(name, value)
    _open(path, SessionChoice(), options)


def _open(
    path: Path, choice: SessionChoice, options: onnxruntime.SessionOptions, advice: str = _AGAIN
) -> onnxruntime.InferenceSession:
    with runtime_errors(str(path), advice), _silence(choice):
        session = onnxruntime.InferenceSession(str(path), options, providers=_providers(choice))
    if choice.provider not in session.get_providers():  # ONNX Runtime falls back without an error
        raise InvalidRequest(
            f"provider {choice.device!r}: ONNX Runtime cannot start it here, its driver or libraries are "
            "missing; install them, or use the provider cpu"
        )
    return session


def _providers(choice: SessionChoice) -> list[str | tuple[str, dict[str, str]]]:
    """The chosen provider, and the CPU's for the operators it does not have."""
    if choice.provider == CPU:
        return [CPU]
    if choice.provider == _OPENVINO:
        # It counts threads by itself.
        return [(_OPENVINO, {"device_type": "CPU", "num_of_threads": str(choice.threads)}), CPU]
    return [choice.provider, CPU]


@contextmanager
def _silence(choice: SessionChoice) -> Iterator[None]:
    """Keep OpenVINO quiet while it opens a session, when it warns about every constant it folds.

    It does so through the logger of the whole process, not that of the session, so that is set back.
    """
    if choice.provider != _OPENVINO:
        yield
        return
    with _LOGGER:  # so sessions of this provider open one after the other
        onnxruntime.set_default_logger_severity(_SILENT)
        try:
            yield
        finally:
            onnxruntime.set_default_logger_severity(_WARNING)


def _options(threads: int, *, optimise: bool = True) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    # A memory pattern is kept for every set of shapes seen, and prompts have as many shapes as lengths.
    options.enable_mem_pattern = False
    options.log_severity_level = _SILENT  # what it would log comes as an exception too
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


@contextmanager
def runtime_errors(what: str, advice: str = _AGAIN) -> Iterator[None]:
    """Turn what ONNX Runtime raises inside the `with` into our errors.

    Args:
        what: The graph, as messages name it.
        advice: What to do when it cannot be run.

    Raises:
        OutOfMemory: An allocation failed, also one of numpy.
        InvalidArtifact: Everything else it refuses: the graph is broken, or of another version.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        if isinstance(error, MemoryError) or (
            _is_runtimes(error) and any(word in reason.lower() for word in _MEMORY_WORDS)
        ):
            raise OutOfMemory(f"{what}: ran out of memory ({reason}); {_FEWER}") from error
        if not _is_runtimes(error):
            raise
        raise InvalidArtifact(
            f"{what}: ONNX Runtime {onnxruntime.__version__} cannot run this graph ({reason}); {advice}"
        ) from error


def _is_runtimes(error: Exception) -> bool:
    """Whether an error is ONNX Runtime's: its classes have no base of their own, only a module.

    A run with bound memory raises a plain `RuntimeError` that begins with these words.
    """
    return type(error).__module__.partition(".")[0] == "onnxruntime" or (
        type(error) is RuntimeError and str(error).startswith("Error in execution")
    )

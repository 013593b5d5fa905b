"""Speech from text through the espeak-ng library, in this process, the same samples every time.

The library keeps hidden state from one utterance to the next (phase, flutter, noise), so that a
recording would depend on what was spoken before. Each utterance therefore loads the library afresh,
seeds the C library's `rand`, and unloads it: 4 ms, still about 400 s of speech per second and core.
A folder of links makes every voice reachable by its short name, which spares the library from
reading all 480 voice files each time (49 ms). Needs the system packages libespeak-ng1 and
espeak-ng-data; PHI4_ESPEAK_LIBRARY and PHI4_ESPEAK_DATA name them when they lie elsewhere.
"""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import os
import shutil
import stat
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import soxr

from phi4.data.voices import DIALECTS, Voice
from phi4.errors import MissingExtra
from phi4.shapes import FloatArray

NATIVE_RATE_HZ = 22050
SAMPLE_RATE_HZ = 16000
APT_LINE = "apt install libespeak-ng1 espeak-ng-data"
LIBRARY_NAMES = ("libespeak-ng.so.1", "libespeak-ng.so", "libespeak-ng.dylib", "libespeak-ng.1.dylib")
_SYNCHRONOUS, _NO_EXIT, _RATE, _PITCH, _UTF8 = 2, 0x8000, 1, 3, 1
_LOCK = threading.Lock()  # the library is one per process and not reentrant
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def find_library() -> str:
    """Returns the name or path of libespeak-ng.

    Raises:
        MissingExtra: Not found; the message holds the apt line.
    """
    chosen = os.environ.get("PHI4_ESPEAK_LIBRARY")
    if chosen:
        if not Path(chosen).is_file():
            raise MissingExtra(f"PHI4_ESPEAK_LIBRARY names {chosen!r}, which is no file; {APT_LINE}")
        return chosen
    for name in LIBRARY_NAMES:
        try:
            handle = ctypes.CDLL(name)
        except OSError:
            continue
        _ctypes.dlclose(handle._handle)
        return name
    raise MissingExtra(f"speech needs the espeak-ng library, which was not found: {APT_LINE}")


def find_data(library: str) -> Path:
    """Returns the folder espeak-ng-data.

    Args:
        library: What `find_library` returned; asked for its own folder when none is named.

    Raises:
        MissingExtra: The folder is missing or has no voices; the message holds the apt line.
    """
    chosen = os.environ.get("PHI4_ESPEAK_DATA")
    folder = Path(chosen) if chosen else _own_data_folder(library)
    if (folder / "espeak-ng-data").is_dir():
        folder = folder / "espeak-ng-data"
    if not (folder / "phontab").is_file() or not (folder / "voices" / "!v").is_dir():
        raise MissingExtra(f"speech needs espeak-ng-data, looked in {str(folder)!r}: {APT_LINE}")
    return folder


def _own_data_folder(library: str) -> Path:
    handle = ctypes.CDLL(library)
    try:
        where = ctypes.c_char_p()
        handle.espeak_Info.restype = ctypes.c_char_p
        handle.espeak_Initialize(_SYNCHRONOUS, 0, None, _NO_EXIT)
        handle.espeak_Info(ctypes.byref(where))
        return Path((where.value or b"").decode())
    finally:
        handle.espeak_Terminate()  # ends the library's thread, which must not outlive its code
        _ctypes.dlclose(handle._handle)


class Synthesizer:
    """The espeak-ng library and its voices; `speak` is a pure function of text and voice."""

    def __init__(self) -> None:
        self.library = find_library()
        self.data = find_data(self.library)
        self._home = self._linked_home()

    def _linked_home(self) -> Path:
        """The folder of links, one for each user and data folder; shared by processes, made if missing.

        It stays, so that killed processes leave nothing behind that the next one does not use.
        """
        links = self._links()
        key = hashlib.blake2b(str(self.data.resolve()).encode(), digest_size=6).hexdigest()
        home = Path(tempfile.gettempdir()) / f"phi4-espeak-{os.getuid()}-{key}"
        if _is_ours(home, links):
            return home
        fresh = Path(tempfile.mkdtemp(prefix="phi4-espeak-"))
        for name, target in links.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).symlink_to(target)
        try:
            fresh.rename(home)  # another process may have been first, or a stranger has taken the name
        except OSError:
            if not _is_ours(home, links):
                return fresh
            shutil.rmtree(fresh)
        return home

    def _links(self) -> dict[str, Path]:
        data = self.data.resolve()
        files = ("phontab", "phonindex", "phondata", "intonations", "en_dict", "voices/!v")
        links = {f"espeak-ng-data/{name}": data / name for name in files}
        for name, file in DIALECTS.items():
            if not (data / "lang" / file).is_file():
                raise MissingExtra(f"espeak-ng-data at {str(data)!r} lacks lang/{file}: {APT_LINE}")
            links[f"espeak-ng-data/voices/{name}"] = data / "lang" / file
        return links

    def speak(self, text: str, voice: Voice) -> FloatArray:
        """Returns `[samples]` float32 in [-1, 1] at 22,050 Hz.

        Raises:
            MissingExtra: This espeak-ng-data has no such voice.
        """
        chunks: list[bytes] = []

        def receive(wave: int | None, count: int, _events: int | None) -> int:
            if wave and count > 0:
                chunks.append(ctypes.string_at(wave, count * 2))
            return 0

        callback = _CALLBACK(receive)
        with _LOCK:
            handle = self._open(voice)
            try:
                handle.espeak_SetSynthCallback(callback)
                handle.espeak_SetParameter(_RATE, voice.rate_wpm, 0)
                handle.espeak_SetParameter(_PITCH, voice.pitch, 0)
                data = text.encode() + b"\0"
                handle.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, _UTF8, None, None)
                handle.espeak_Synchronize()
            finally:
                self._close(handle)
        return np.frombuffer(b"".join(chunks), np.int16).astype(np.float32) / np.float32(32768)

    def phonemes(self, text: str, dialect: str) -> str:
        """Returns how a dialect says `text`, in espeak-ng's letters; equal strings sound alike."""
        with _LOCK:
            handle = self._open(Voice(dialect, "m1"))
            try:
                handle.espeak_TextToPhonemes.restype = ctypes.c_char_p
                pointer = ctypes.c_char_p(text.encode())
                said = handle.espeak_TextToPhonemes(ctypes.byref(pointer), _UTF8, 0)
                return (said or b"").decode().strip()
            finally:
                self._close(handle)

    def _open(self, voice: Voice) -> ctypes.CDLL:
        handle = ctypes.CDLL(self.library)
        handle.espeak_Initialize(_SYNCHRONOUS, 0, str(self._home).encode(), _NO_EXIT)
        ctypes.CDLL(None).srand(1)
        if handle.espeak_SetVoiceByName(voice.name.encode()) != 0:
            self._close(handle)
            raise MissingExtra(
                f"espeak-ng-data at {str(self.data)!r} has no voice {voice.name!r}: {APT_LINE}"
            )
        return handle

    @staticmethod
    def _close(handle: ctypes.CDLL) -> None:
        handle.espeak_Terminate()
        _ctypes.dlclose(handle._handle)


def _is_ours(home: Path, links: dict[str, Path]) -> bool:
    """Whether a folder is a real one of this user and every link in it leads where it should."""
    try:
        facts = home.lstat()
        return (
            stat.S_ISDIR(facts.st_mode)
            and facts.st_uid == os.getuid()
            and all((home / name).readlink() == target for name, target in links.items())
        )
    except OSError:
        return False


@lru_cache(maxsize=1)
def synthesizer() -> Synthesizer:
    """Returns the one synthesizer of this process."""
    return Synthesizer()


def resample(samples: FloatArray, speed: float = 1.0) -> FloatArray:
    """Returns `samples` (22,050 Hz) at 16 kHz, played `speed` times as fast (pitch moves with it)."""
    slower = soxr.resample(samples, NATIVE_RATE_HZ * speed, SAMPLE_RATE_HZ, quality="MQ")
    return np.asarray(slower, np.float32)

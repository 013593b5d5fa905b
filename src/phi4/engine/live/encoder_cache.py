"""Encoder outputs of a runner, shared by all requests that show the same picture or recording.

A medium is known by its kind, digest and size, the projector and the tenant. Outputs live while a request
uses them and then, within a limit, until they are the ones longest unused.
"""

from __future__ import annotations

from dataclasses import dataclass

from phi4.configs.routing import AudioProjector
from phi4.engine.runner import MediaHandle, ModelRunner
from phi4.types import AudioArrays, ImageArrays

_Key = tuple[str, str, int, AudioProjector, str]


@dataclass
class _Entry:
    handle: MediaHandle
    users: int = 0


class EncoderCache:
    """Encoder outputs by content.

    Args:
        runner: Whose encoders run.
        tokens: Most tokens of outputs that nobody uses to keep; 0 = release them at once.

    Attributes:
        queries: Media that were asked for so far.
        hits: Of those, the ones that needed no encoder.
    """

    def __init__(self, runner: ModelRunner, tokens: int = 0) -> None:
        self._runner = runner
        self._tokens = tokens
        self._entries: dict[_Key, _Entry] = {}  # unused ones in the order in which they came to be so
        self._keys: dict[int, _Key] = {}
        self.queries = 0
        self.hits = 0

    @property
    def unused_tokens(self) -> int:
        """Tokens of outputs that are kept for nobody in particular."""
        return sum(entry.handle.num_tokens for entry in self._entries.values() if not entry.users)

    def holds(self, medium: ImageArrays | AudioArrays, projector: AudioProjector, salt: str) -> bool:
        """Whether `acquire` would need no encoder."""
        return _key(medium, projector, salt) in self._entries

    def acquire(self, medium: ImageArrays | AudioArrays, projector: AudioProjector, salt: str) -> MediaHandle:
        """The outputs of a medium, encoded if nobody has; they stay until as many calls of `release`.

        Raises:
            InvalidRequest: As `ModelRunner.encode`.
            OutOfMemory: The same; `evict` may make room.
        """
        key = _key(medium, projector, salt)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(self._runner.encode(medium, projector))
            self._keys[entry.handle.id] = key
        else:
            self.hits += 1
        self.queries += 1
        entry.users += 1
        return entry.handle

    def release(self, handle: MediaHandle) -> None:
        """One user fewer."""
        key = self._keys[handle.id]
        entry = self._entries.pop(key)
        self._entries[key] = entry  # the last of the unused ones
        entry.users -= 1
        assert entry.users >= 0, "released more often than acquired"
        while self.unused_tokens > self._tokens:
            self.evict()

    def evict(self) -> bool:
        """Release the outputs longest unused; False when all are in use."""
        for key, entry in self._entries.items():
            if not entry.users:
                del self._entries[key], self._keys[entry.handle.id]
                self._runner.release(entry.handle)
                return True
        return False

    def evict_all(self) -> bool:
        """Release all outputs that nobody uses; False when there are none."""
        found = self.evict()
        while self.evict():
            pass
        return found


def _key(medium: ImageArrays | AudioArrays, projector: AudioProjector, salt: str) -> _Key:
    return type(medium).__name__, medium.digest, medium.num_tokens, projector, salt

"""Forms (`multipart/form-data`): one file and a few short fields, read into memory with bounds on each.

The bytes of a body are counted before they come here, so nothing is written to a disk and nothing can be left
open. A form that does not end as it announced is refused, whatever was complete in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from phi4.errors import InvalidRequest

MAX_FIELDS = 64
MAX_FIELD_BYTES = 64 * 1024
MAX_HEAD_BYTES = 8 * 1024
"""Headers of one part."""


@dataclass
class Form:
    """What a form holds.

    Attributes:
        fields: Names and values, in order.
        files: Names and contents of files, in order; there is at most one.
    """

    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)


class FormReader:
    """Reads a form while its bytes arrive: `write` them, then `close`.

    Args:
        content_type: The header, which names the boundary.

    Raises:
        InvalidRequest: It names none.
    """

    def __init__(self, content_type: str) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._head_name,
                    "on_header_value": self._head_value,
                    "on_header_end": self._head_end,
                    "on_headers_finished": self._content,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._all,
                },
            )
        except FormParserError:
            boundary = b""
        if not boundary:
            raise _broken("its Content-Type names no boundary")
        self._form = Form()
        self._is_whole = False
        self._begin()

    def write(self, chunk: bytes) -> None:
        """Read some more.

        Raises:
            InvalidRequest: It is broken, or has too much of something.
        """
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _broken("it does not follow its boundary") from None

    def close(self) -> Form:
        """The whole form.

        Raises:
            InvalidRequest: It breaks off.
        """
        if not self._is_whole:
            raise _broken("it breaks off before its end")
        return self._form

    def _begin(self) -> None:
        self._name, self._head, self._disposition = b"", b"", b""
        self._label, self._is_file = "", False
        self._body = bytearray()

    def _head_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check_head()

    def _head_value(self, data: bytes, start: int, end: int) -> None:
        self._head += data[start:end]
        self._check_head()

    def _check_head(self) -> None:
        if len(self._name) + len(self._head) > MAX_HEAD_BYTES:
            raise _broken(f"a part has more than {MAX_HEAD_BYTES} bytes of header")

    def _head_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._head
        self._name, self._head = b"", b""

    def _content(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise _broken("a part has no name")
        self._label = options[b"name"].decode("utf-8", "replace")
        self._is_file = b"filename" in options
        if self._is_file and self._form.files:
            raise _broken("it holds more than one file")
        if len(self._form.fields) >= MAX_FIELDS:
            raise _broken(f"it has more than {MAX_FIELDS} fields")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file and len(self._body) + end - start > MAX_FIELD_BYTES:
            raise _broken(f"a field has more than {MAX_FIELD_BYTES} bytes")
        self._body += data[start:end]

    def _end(self) -> None:
        if self._is_file:
            self._form.files.append((self._label, bytes(self._body)))
            self._body = bytearray()
            return
        try:
            self._form.fields.append((self._label, self._body.decode("utf-8")))
        except UnicodeDecodeError:
            raise _broken("a field is not UTF-8") from None

    def _all(self) -> None:
        self._is_whole = True


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"the form cannot be read: {why}; send one file and a few short fields, as curl -F does"
    )

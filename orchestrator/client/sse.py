"""Server-sent events, read from bytes as they come (WHATWG HTML, "Interpreting an event stream").

    b"id: 3\\nevent: task_state\\ndata: {…}\\n\\n"   ->  Frame("3", "task_state", "{…}")
    b": keep-alive 1795380373794\\n\\n"               ->  KEEP_ALIVE

Bytes may be cut anywhere, also inside a character; lines may end in LF, CR or both. A `retry:` is left out: how
fast we come back is for us to say.
"""

from __future__ import annotations

import codecs
from typing import Final, NamedTuple


class Frame(NamedTuple):
    """One event as the wire carried it."""

    #: None when the frame has no id of its own
    id: str | None
    kind: str
    data: str


#: stands for a comment: nothing happened, and the connection lives
KEEP_ALIVE: Final = Frame(None, "", "")


class Decoder:
    """One stream. A frame that is not complete when the stream ends is lost, as the standard has it."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._after_cr = False
        self._id: str | None = None
        self._kind = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames and comments that `chunk` completes."""
        frames = []
        for line in self._lines(self._text.decode(chunk)):
            if (frame := self._take(line)) is not None:
                frames.append(frame)
        return frames

    def _lines(self, text: str) -> list[str]:
        """The lines that `text` completes; what is left waits for more."""
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        self._after_cr = text.endswith("\r") or (self._after_cr and not text)
        *lines, self._line = (self._line + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        return lines

    def _take(self, line: str) -> Frame | None:
        if not line:
            frame = Frame(self._id, self._kind or "message", "\n".join(self._data)) if self._data else None
            self._forget()
            return frame
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                return KEEP_ALIVE
            case "data":
                self._data.append(value)
            case "event":
                self._kind = value
            case "id" if "\0" not in value:
                self._id = value
        return None

    def _forget(self) -> None:
        self._id, self._kind, self._data = None, "", []

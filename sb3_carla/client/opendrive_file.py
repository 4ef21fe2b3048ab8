"""Reading OpenDRIVE files, wherever that is done."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from sb3_carla.errors import MapError

__all__ = ["read_opendrive_file"]

_DECLARED = re.compile(rb"<\?xml[^>]*\sencoding\s*=\s*[\"']([\w.-]+)[\"']")
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_opendrive_file(path: str) -> str:
    """
    :param path: of the file
    :return: its text, decoded as XML says: by its byte order mark, its declaration, or else UTF-8
    :raises MapError: if it cannot be read
    """
    try:
        content = Path(path).read_bytes()
        declared = _DECLARED.match(content)
        encoding = declared.group(1).decode() if declared else "utf-8"
        for mark, name in _MARKS.items():
            if content.startswith(mark):
                encoding = name
        return content.decode(encoding)
    except (OSError, UnicodeDecodeError, LookupError) as error:
        raise MapError(f"OpenDRIVE file {path!r} cannot be read: {error}") from error

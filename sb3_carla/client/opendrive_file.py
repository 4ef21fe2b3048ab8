"""Reads OpenDRIVE files, for the client and for the packaged server."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from sb3_carla.errors import MapError

__all__ = ["read_opendrive_file"]

_ENCODING = re.compile(rb"<\?xml[^>]*\sencoding\s*=\s*[\"']([\w.-]+)[\"']")
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_opendrive_file(path: str) -> str:
    """
    :param path: of the file
    :return: its text, decoded as XML 1.0 (appendix F) says: by its byte order mark, else its declaration, else UTF-8
    :raises MapError: if it cannot be read
    """
    try:
        content = Path(path).read_bytes()
        declared = _ENCODING.match(content)
        encoding = declared.group(1).decode() if declared else "utf-8"
        for mark, name in _BYTE_ORDER_MARKS.items():
            if content.startswith(mark):
                encoding = name
        return content.decode(encoding)
    except (OSError, UnicodeDecodeError, LookupError) as error:
        raise MapError(f"OpenDRIVE file {path!r} cannot be read: {error}") from error

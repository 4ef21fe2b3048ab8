"""Where a result comes from: command, date and versions."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import Any

from sb3_carla.checkpointing.versions import versions

__all__ = ["provenance"]


def provenance() -> dict[str, Any]:
    """
    :return: ``command``, ``date`` (UTC) and ``versions``, to be saved with every result
    """
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"command": " ".join(sys.orig_argv), "date": date, "versions": versions()}

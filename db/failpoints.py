"""Places at which a test may end this process as SIGKILL does, to see that what is half done is completed.

They do nothing unless HARBOR_FAILPOINT names one, which the settings refuse in prod.
"""

from __future__ import annotations

import os
import signal

from db.settings import settings


def reach(name: str) -> None:
    """End the process here when this place is the one that HARBOR_FAILPOINT names."""
    if settings().failpoint == name:
        os.kill(os.getpid(), signal.SIGKILL)

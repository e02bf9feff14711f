"""Where `harbor` becomes Celery: the same process, so that signals and supervisors meet Celery itself."""

import os
import sys
from typing import NoReturn


def become_celery(*arguments: str, **environ: str) -> NoReturn:
    """Replace this process by `celery -A worker ARGUMENTS`.

    Everybody on the machine can read a command line: secrets go into `environ`, which is added to this process's own.

    Raises:
        SettingsError: a setting is missing or malformed. Found here, before Celery is loaded.
    """
    from db.settings import settings

    settings()
    sys.stdout.flush()
    command = [sys.executable, "-m", "celery", "--quiet", "--app", "worker", *arguments]
    os.execve(sys.executable, command, {**os.environ, **environ})  # noqa: S606 - a list of arguments, and no shell

"""How the programs that are named in a message are called from here.

Promise: a command between backticks works as it is typed, also where the environment it is installed in is not active.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path

_COMMAND = re.compile(r"(?<=`)(alembic|celery|harbor)\b")


def typed(text: str) -> str:
    """Return a text in which the programs between backticks are named so that they are found."""
    return _COMMAND.sub(lambda found: _called(found[0]), text)


def _called(program: str) -> str:
    script = Path(sys.executable).absolute().with_name(program)
    onpath = shutil.which(program)
    if not script.exists() or (onpath is not None and script.samefile(onpath)):
        return program
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))

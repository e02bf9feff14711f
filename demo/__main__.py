"""`python -m demo`: the command line. It ends in 0 when the books are right, 1 when not, 2 when the trace is no trace."""

from __future__ import annotations

import signal
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import SQLAlchemyError

from db.errors import HarborError
from demo.errors import DemoError
from demo.generate import generate
from demo.replay import Demo, Script
from demo.trace import COLUMNS, Trace, TraceError, read
from stack import StackError

if TYPE_CHECKING:
    from demo.report import Report

EXIT_BAD_FILE, EXIT_INTERRUPTED = 2, 130
GENERATED_ORDERS, GENERATED_DAYS = 1_000, 9
NAMED_ROWS = 10

console = Console()
complaints = Console(stderr=True)

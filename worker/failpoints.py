"""Places at which a test may end this process: those of `db`, under the name that the relay knows."""

from db.failpoints import reach

__all__ = ["reach"]

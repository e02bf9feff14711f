"""The speed of holds: taking them on one hot variant, taking whole baskets, and giving back those that are due.

Promise: after each round the database is asked whether a unit was oversold, lost or given back twice; a side that did
any of it gets no number.
"""

from bench.measure import Measurement
from bench.reservations import expire, reserve
from bench.reservations.size import FULL, QUICK, Size

MEASUREMENTS: tuple[Measurement[Size], ...] = (
    Measurement((reserve.HOT,), reserve.reserve_hot),
    Measurement((reserve.BASKET,), reserve.reserve_basket),
    Measurement((expire.VS_ROWS, expire.VS_LIMIT), expire.expire_due_holds),
    Measurement((expire.IDLE,), expire.expire_nothing),
)

__all__ = ["FULL", "MEASUREMENTS", "QUICK", "Size"]

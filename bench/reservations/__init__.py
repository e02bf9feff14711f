"""The speed of holds, from the drop that everybody wants to the sweep that nobody sees, and of the worker that sweeps.

Promise: after each round the database is asked whether a unit was oversold, lost or given back twice; a side that did
any of it gets no number.
"""

from bench.measure import Measurement
from bench.reservations import expire, history, reserve, sold_out
from bench.reservations.size import FULL, QUICK, Size
from bench.worker import overhead

MEASUREMENTS: tuple[Measurement[Size], ...] = (
    Measurement((reserve.HOT,), reserve.reserve_hot),
    Measurement((reserve.HOT_64,), reserve.reserve_hot_by_many),
    Measurement((reserve.MANY_HOT,), reserve.reserve_many_hot),
    Measurement((sold_out.SOLD_OUT,), sold_out.refuse),
    Measurement((reserve.BASKET,), reserve.reserve_basket),
    Measurement((expire.VS_ROWS, expire.VS_LIMIT), expire.expire_due_holds),
    Measurement((history.IDLE, history.GROWTH), history.expire_after_years),
    Measurement((overhead.OVERHEAD, overhead.RSS), overhead.run_tasks),
)

__all__ = ["FULL", "MEASUREMENTS", "QUICK", "Size"]

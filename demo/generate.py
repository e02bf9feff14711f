"""A made-up trace with the statistics of a real shop's order lines, the same for the same seed.

The model is the first three days (1 to 3 December 2010) of *Online Retail* (D. Chen, UCI Machine Learning Repository,
2015, doi 10.24432/C5BW33, CC BY 4.0). Measured there, goods only:

    orders 351, rows that sell 7,280, skus 1,842, rows that return 113, rows that are no goods 26
    distinct skus per order: median 11, p75 19, p90 38, p95 62, p99 145, three of 500 to 590, mean 20.2; one alone in 57
    units per row: median 3, p75 10, p90 24, p95 34, p99 108, largest 2,880, mean 10.3
    rows per sku: hottest 46, 10th 31, 100th 12, 400th 5, 1,600th 1; the hottest tenth of skus has 37 % of the rows
    orders with the same sku in two rows: 33, with 187 rows too many; of 267 orders below 20 rows 1, of 50 below 40
    rows 12, of the 34 larger ones 20
    returns: 35 cancellations (C…) with 83 rows, and 30 corrections of one row each at price 0

The figures below are those, rounded; `tests/demo/test_trace.py` holds the result near them.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from demo.rows import COLUMNS
from demo.trace import Trace, parse

FIRST_DAY = datetime(2010, 12, 1, tzinfo=UTC)
FIRST_ORDER_ID = 100_001

# The shop lists more than three days sell: about 1,900 of these are ever asked for.
CATALOGUE_SIZE = 2_300
# Zipf-Mandelbrot: a sku of rank r is asked for in proportion to 1 / (r + offset) ** exponent.
HEAT_OFFSET, HEAT_EXPONENT = 22, 0.85

ORDERS_PER_GIANT = 117
GIANT_SKUS = (500, 600)
SINGLE_SKU_SHARE = 0.16
# The logarithm of all other basket sizes: mean and standard deviation.
BASKET_LOG_MEAN, BASKET_LOG_SIGMA = 2.55, 0.96
LARGEST_COMMON_BASKET = 150

# The share of orders of at least that many skus in which some sku stands twice, and how many rows that adds on average.
REPEATS = ((40, 0.6), (20, 0.24))
REPEATED_ROWS = 5.5

CANCELLATIONS_PER_ORDER = 35 / 351
CORRECTIONS_PER_ORDER = 30 / 351
NO_GOODS_PER_ORDER = 26 / 351

# Orders by hour of the day, 07:00 to 19:59.
FIRST_HOUR = 7
HOUR_WEIGHTS = (2, 12, 29, 32, 35, 55, 31, 44, 47, 34, 18, 10, 2)


class _Mix(NamedTuple):
    """Values and how often each is seen."""

    values: Sequence[int]
    weights: Sequence[float]

    def pick(self, rng: random.Random) -> int:
        return rng.choices(self.values, self.weights)[0]


# Shops buy by the pack, and a few buy hundreds; rows of 5,312 orders' lines, the rarest put together.
PACKS = _Mix(
    (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 36, 48, 72, 96, 100, 120, 144, 192, 216, 288, 432, 600, 1440, 2880),
    (1319, 658, 293, 339, 80, 625, 29, 168, 138, 793, 55, 60, 345, 80, 106, 35, 27, 14, 21, 18, 9, 6, 3, 3, 2, 3, 1),
)
# The giants resell single pieces: 1,968 rows in five orders.
PIECES = _Mix((1, 2, 3, 4, 5, 6, 8, 10, 12, 18, 28, 45), (1102, 386, 187, 86, 55, 31, 47, 28, 14, 10, 6, 2))
RETURNED = _Mix((1, 2, 3, 4, 6, 12, 24, 36, 48, 144, 192, 9360), (42, 22, 6, 4, 3, 4, 4, 2, 4, 3, 2, 1))
CORRECTED = _Mix((2, 5, 6, 12, 20, 30, 38, 70, 80, 120, 140, 320), (2, 2, 4, 3, 8, 4, 1, 2, 2, 1, 1, 1))
RETURN_ROWS = _Mix((1, 2, 4, 6, 14), (20, 9, 3, 2, 1))
NO_GOODS_CODES = ("POST", "DOT", "M", "D", "C2", "BANK CHARGES")
NO_GOODS_WEIGHTS = (13, 6, 4, 1, 1, 1)


class _Entry(NamedTuple):
    """One row before it has a number and a time."""

    sku: str
    qty: int
    price: str


def generate(seed: int, *, orders: int = 350, days: int = 3) -> Trace:
    """Make a trace of that many orders, and returns in proportion, over that many days of trade.

    Raises:
        ValueError: `orders` or `days` is below 1.
    """
    return parse(generate_lines(seed, orders=orders, days=days), f"the trace generated from seed {seed}")


def generate_lines(seed: int, *, orders: int = 350, days: int = 3) -> Iterator[str]:
    """Yield the generated trace as lines of CSV, the header first.

    Raises:
        ValueError: `orders` or `days` is below 1.
    """
    if orders < 1 or days < 1:
        raise ValueError(f"orders ({orders}) and days ({days}) must be at least 1")
    return _Shop(random.Random(seed)).lines(orders, days)


class _Shop:
    """A catalogue with hot and cold skus, and the documents its customers cause."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        codes = rng.sample(range(10_000, 90_000), CATALOGUE_SIZE)
        # Every fifth code has a letter for its colour or size.
        self._skus = [f"{code}{rng.choice('ABCDEFGL')}" if rng.random() < 0.2 else str(code) for code in codes]
        heat = 0.0
        self._heat = [heat := heat + (rank + HEAT_OFFSET) ** -HEAT_EXPONENT for rank in range(1, CATALOGUE_SIZE + 1)]
        # In pence, ending in 5 as the shop's own prices do: median about 2.50.
        self._prices = {sku: 10 * max(2, min(2950, round(rng.lognormvariate(3.2, 0.85)))) + 5 for sku in self._skus}

    def lines(self, orders: int, days: int) -> Iterator[str]:
        """Yield the header and the rows of all documents in time order."""
        documents = [(self._moment(days), *document) for document in self._documents(orders)]
        yield ",".join(COLUMNS)
        for number, (moment, prefix, entries) in enumerate(sorted(documents, key=lambda document: document[0])):
            for entry in entries:
                when = moment.strftime("%Y-%m-%dT%H:%MZ")
                yield f"{prefix}{FIRST_ORDER_ID + number},{entry.sku},{entry.qty},{when},{entry.price}"

    def _documents(self, orders: int) -> Iterator[tuple[str, list[_Entry]]]:
        """Yield the prefix of each document's id, and its rows."""
        for number in range(1, orders + 1):
            yield "", self._order(giant=number % ORDERS_PER_GIANT == 0)
        for _ in range(round(orders * CANCELLATIONS_PER_ORDER)):
            rows = RETURN_ROWS.pick(self._rng)
            yield "C", [self._entry(sku, -RETURNED.pick(self._rng)) for sku in self._basket(rows)]
        for _ in range(round(orders * CORRECTIONS_PER_ORDER)):
            yield "", [_Entry(self._basket(1)[0], -CORRECTED.pick(self._rng), "0")]

    def _order(self, *, giant: bool) -> list[_Entry]:
        rng = self._rng
        basket = self._basket(rng.randint(*GIANT_SKUS) if giant else self._basket_size())
        mix = PIECES if giant else PACKS
        share = next((share for size, share in REPEATS if len(basket) >= size), 0.0)
        if rng.random() < share:
            rows = min(len(basket), 1 + int(rng.expovariate(1 / REPEATED_ROWS)))
            basket += rng.sample(basket, rows)
        entries = [self._entry(sku, mix.pick(rng)) for sku in basket]
        if rng.random() < NO_GOODS_PER_ORDER:
            entries.append(_Entry(rng.choices(NO_GOODS_CODES, NO_GOODS_WEIGHTS)[0], 1, "18"))
        return entries

    def _basket_size(self) -> int:
        if self._rng.random() < SINGLE_SKU_SHARE:
            return 1
        return max(1, min(LARGEST_COMMON_BASKET, round(self._rng.lognormvariate(BASKET_LOG_MEAN, BASKET_LOG_SIGMA))))

    def _basket(self, size: int) -> list[str]:
        """Draw different skus, hot ones more often."""
        basket: dict[str, None] = {}
        while len(basket) < size:
            basket.update(dict.fromkeys(self._rng.choices(self._skus, cum_weights=self._heat, k=size - len(basket))))
        return list(basket)

    def _entry(self, sku: str, qty: int) -> _Entry:
        # A dozen or more are cheaper by the piece, so one sku has more than one price, as in half of the real ones.
        pence = self._prices[sku] * (85 if qty >= 12 else 100) // 100
        return _Entry(sku, qty, f"{pence // 100}.{pence % 100:02d}")

    def _moment(self, days: int) -> datetime:
        rng = self._rng
        (hour,) = rng.choices(range(FIRST_HOUR, FIRST_HOUR + len(HOUR_WEIGHTS)), HOUR_WEIGHTS)
        return FIRST_DAY + timedelta(days=rng.randrange(days), hours=hour, minutes=rng.randrange(60))

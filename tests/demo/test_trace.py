from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from demo.errors import TraceError
from demo.generate import generate, generate_lines
from demo.rows import COLUMNS
from demo.trace import Malformed, Order, Return, Trace, parse, read

HEADER = "order_id,sku,qty,ordered_at,unit_price"
GOOD = "1,HBR-MUG-01,1,2010-12-01T09:00:00Z,2.50"


def trace_of(*rows: str) -> Trace:
    return parse([HEADER, *rows], "the test's rows")


def only_order(trace: Trace) -> Order:
    (order,) = trace.orders
    return order


def rows_of(trace: Trace) -> int:
    return trace.lines + trace.lines_skipped + len(trace.malformed)


def test_rows_become_orders_in_time_order_and_rows_of_one_minute_keep_theirs() -> None:
    trace = trace_of(
        "late,A1,1,2010-12-01T10:00:00Z,1",
        "early-z,A1,2,2010-12-01T09:00:00Z,1",
        "early-a,A1,3,2010-12-01T09:00:00Z,1",
    )

    assert [order.order_id for order in trace.orders] == ["early-z", "early-a", "late"]
    assert trace.orders[0] == Order("early-z", datetime(2010, 12, 1, 9, tzinfo=UTC), {"A1": 2})
    assert trace.lines == 3


def test_the_same_sku_twice_in_an_order_is_summed() -> None:
    trace = trace_of(
        "1,71053,6,2010-12-01T09:00:00Z,1",
        "1,85123A,1,2010-12-01T09:00:00Z,1",
        "2,71053,5,2010-12-01T09:00:00Z,1",
        "1,71053,4,2010-12-01T09:00:00Z,1",
    )

    assert [order.lines for order in trace.orders] == [{"71053": 10, "85123A": 1}, {"71053": 5}]
    assert trace.lines == 4


def test_an_order_stands_at_its_earliest_line() -> None:
    trace = trace_of(*(f"1,{sku},1,2010-12-01T09:0{minute}:00Z,1" for sku, minute in [("A1", 5), ("A2", 4), ("A3", 6)]))

    assert only_order(trace).ordered_at == datetime(2010, 12, 1, 9, 4, tzinfo=UTC)


def test_a_negative_quantity_is_a_return_and_is_not_taken_off_the_order() -> None:
    trace = trace_of(
        "1,71053,6,2010-12-01T09:00:00Z,1",
        "1,71053,-2,2010-12-01T09:00:00Z,1",
        "1,71053,-3,2010-12-01T08:00:00Z,1",
    )

    assert only_order(trace).lines == {"71053": 6}
    assert trace.returns == (
        Return("1", datetime(2010, 12, 1, 8, tzinfo=UTC), "71053", 3),
        Return("1", datetime(2010, 12, 1, 9, tzinfo=UTC), "71053", 2),
    )
    assert trace.lines == 3


def test_an_order_of_returns_alone_is_no_order() -> None:
    trace = trace_of("C1,71053,-2,2010-12-01T09:00:00Z,1")

    assert trace.orders == ()
    assert len(trace.returns) == 1
    assert trace.prices == {"71053": 100}


def test_codes_that_are_no_goods_are_counted_by_code_even_with_a_price_that_goods_may_not_have() -> None:
    codes = ["POST", "POST", "D", "M", "m", "DOT", "BANK CHARGES", "C2", "S", "B", "CRUK", "AMAZONFEE", "PADS"]

    trace = trace_of(GOOD, *(f"2,{code},1,2010-12-01T09:00:00Z,-11062.06" for code in [*codes, "gift_0001_20"]))

    assert trace.skipped == {**Counter(codes), "gift_0001_20": 1}
    assert trace.lines_skipped == 14
    assert trace.malformed == ()
    assert [order.order_id for order in trace.orders] == ["1"]


def test_goods_with_odd_codes_are_sold() -> None:
    skus = ["85123A", "15056BL", "DCGS0076", "DCGSSBOY", "HBR-MUG-01", "MUG", "POSTER", "POST-1", "18098c"]

    trace = trace_of(*(f"1,{sku},1,2010-12-01T09:00:00Z,1" for sku in skus))

    assert list(only_order(trace).lines) == skus
    assert trace.lines_skipped == 0


def test_prices_are_exact_pence_and_the_last_one_above_zero_counts() -> None:
    trace = trace_of(
        "1,A1,1,2010-12-01T09:00:00Z,2.55",
        "1,A1,1,2010-12-01T09:00:00Z,1.15",
        "1,A1,-1,2010-12-01T09:00:00Z,0",
        "1,A2,1,2010-12-01T09:00:00Z,0.285",
        "1,A3,1,2010-12-01T09:00:00Z,0",
    )

    assert trace.prices == {"A1": 115, "A2": 29, "A3": 0}


def test_times_become_utc_and_a_time_without_a_zone_is_utc() -> None:
    trace = trace_of("1,A1,1,2010-12-01T09:00:00+02:00,1", "2,A1,1,2010-12-01T08:00,1", "3,A1,1,2010-12-02,1")

    assert [order.ordered_at.isoformat() for order in trace.orders] == [
        "2010-12-01T07:00:00+00:00",
        "2010-12-01T08:00:00+00:00",
        "2010-12-02T00:00:00+00:00",
    ]


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ("1,A1,1", "ordered_at", "ends before ordered_at and unit_price"),
        ("1,A1,1,2010-12-01T09:00:00Z", "unit_price", "ends before unit_price"),
        (",A1,1,2010-12-01T09:00:00Z,1", "order_id", "empty"),
        (f"{'x' * 201},A1,1,2010-12-01T09:00:00Z,1", "order_id", "201 characters"),
        ("1\x002,A1,1,2010-12-01T09:00:00Z,1", "order_id", "NUL"),
        ("1, ,1,2010-12-01T09:00:00Z,1", "sku", "empty"),
        (f"1,{'x' * 201},1,2010-12-01T09:00:00Z,1", "sku", "201 characters"),
        ("1,A\x001,1,2010-12-01T09:00:00Z,1", "sku", "NUL"),
        ("1,A1,0,2010-12-01T09:00:00Z,1", "qty", "is 0"),
        ("1,A1,-0,2010-12-01T09:00:00Z,1", "qty", "is 0"),
        ("1,A1,,2010-12-01T09:00:00Z,1", "qty", "not a whole number"),
        ("1,A1,six,2010-12-01T09:00:00Z,1", "qty", "not a whole number"),
        ("1,A1,6.0,2010-12-01T09:00:00Z,1", "qty", "not a whole number"),
        ("1,A1,2147483648,2010-12-01T09:00:00Z,1", "qty", "beyond 2147483647"),
        ("1,A1,-2147483648,2010-12-01T09:00:00Z,1", "qty", "beyond 2147483647"),
        (f"1,A1,{'9' * 5000},2010-12-01T09:00:00Z,1", "qty", "beyond 2147483647"),
        ("1,A1,1,12/1/2010 8:26,1", "ordered_at", "not an ISO 8601 time"),
        ("1,A1,1,2010-02-30T09:00:00Z,1", "ordered_at", "not an ISO 8601 time"),
        ("1,A1,1,0001-01-01T00:00:00+05:00,1", "ordered_at", "not an ISO 8601 time"),
        ("1,A1,1,,1", "ordered_at", "not an ISO 8601 time"),
        ("1,A1,1,2010-12-01T09:00:00Z,-0.01", "unit_price", "negative"),
        ("1,A1,1,2010-12-01T09:00:00Z,", "unit_price", "not a number"),
        ("1,A1,1,2010-12-01T09:00:00Z,cheap", "unit_price", "not a number"),
        ("1,A1,1,2010-12-01T09:00:00Z,NaN", "unit_price", "not a finite number"),
        ("1,A1,1,2010-12-01T09:00:00Z,sNaN", "unit_price", "not a finite number"),
        ("1,A1,1,2010-12-01T09:00:00Z,Infinity", "unit_price", "not a finite number"),
        ("1,A1,1,2010-12-01T09:00:00Z,1E+999999", "unit_price", "above 2147483647 pence"),
        ('1,"A1,1,2010-12-01T09:00:00Z,1', "row", "no CSV"),
        (f"1,A1,1,2010-12-01T09:00:00Z,1,{'x' * 200_000}", "row", "no CSV"),
    ],
)
def test_a_malformed_row_is_named_and_the_rows_around_it_are_used(row: str, column: str, words: str) -> None:
    trace = trace_of(GOOD, row, GOOD)

    (bad,) = trace.malformed
    assert (bad.line, bad.field) == (3, column)
    assert words in bad.reason
    assert bad.reason.endswith(".")
    assert len(bad.reason) < 200
    assert only_order(trace).lines == {"HBR-MUG-01": 2}


@pytest.mark.parametrize(
    "row",
    [
        f"{'x' * 200},A1,1,2010-12-01T09:00:00Z,1",
        f"1,{'x' * 200},1,2010-12-01T09:00:00Z,1",
        "1,A1,2147483647,2010-12-01T09:00:00Z,1",
        "1,A1,-2147483647,2010-12-01T09:00:00Z,1",
        "1,A1,+0000000000000006,2010-12-01T09:00:00Z,1",
        "1,A1,1,2010-12-01T09:00:00Z,0",
        "1,A1,1,2010-12-01T09:00:00Z,21474836.47",
        ' 1 , A1 ,"6", 2010-12-01T09:00:00Z , 1 ,"an extra, cell"',
    ],
)
def test_a_row_at_the_edge_of_what_is_allowed_is_used(row: str) -> None:
    trace = trace_of(row)

    assert trace.lines == 1
    assert trace.malformed == ()


def test_a_row_that_would_sum_beyond_an_integer_is_malformed_and_the_order_keeps_what_it_had() -> None:
    trace = trace_of("1,A1,2147483647,2010-12-01T09:00:00Z,1", "1,A1,1,2010-12-01T09:00:00Z,9")

    assert trace.malformed == (Malformed(3, "qty", "qty brings sku 'A1' of this order above 2147483647."),)
    assert only_order(trace).lines == {"A1": 2147483647}
    assert trace.prices == {"A1": 100}


def test_columns_may_stand_in_any_order_among_others(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(
        b"\xef\xbb\xbfunit_price,country, qty ,sku,ordered_at,order_id,note\r\n"
        b'2.50,UK,3,71053,2010-12-01T09:00:00Z,1,"red, large"\r\n'
        b"\r\n"
        b"2.50,UK,0,71053,2010-12-01T09:00:00Z,1,\r\n"
    )

    trace = read(path)

    assert only_order(trace).lines == {"71053": 3}
    assert trace.prices == {"71053": 250}
    assert trace.malformed[0].line == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n \n", "is empty"),
        (HEADER.encode(), "no usable row: 0 are no goods, 0 are malformed"),
        (
            f"{HEADER}\n1,POST,1,2010-12-01,1\n1,A1,0,2010-12-01,1\n".encode(),
            "1 are no goods, 1 are malformed (the fir",
        ),
        (b"order_id,sku,qty\n1,A1,1\n", "no column ordered_at, unit_price in its header"),
        (f"{HEADER},qty\n".encode(), "more than one column qty"),
        (b'order_id,"sku\n', "header that is no CSV"),
        (f"{HEADER}\n{GOOD}\n1,caf\xe9,1,2010-12-01,1\n".encode("latin-1"), "not UTF-8: line 3 holds the byte 0xe9"),
        (f"{HEADER}\n{GOOD}\n".encode("utf-16"), "not UTF-8: line 1"),
    ],
)
def test_a_file_that_cannot_be_replayed_is_an_error_that_names_it(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(content)

    with pytest.raises(TraceError) as caught:
        read(path)

    assert str(caught.value).startswith(f"{path} ")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["", "missing.csv", "x" * 300, "a\0b"])
def test_what_is_no_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    with pytest.raises(TraceError) as caught:
        read(path)

    assert str(caught.value).startswith(f"{path} ")


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    first = generate(7)

    assert generate(7) == first
    assert generate(8) != first


def test_a_generated_trace_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("\n".join(generate_lines(7, orders=20)))

    assert read(path) == generate(7, orders=20)


@pytest.mark.parametrize("seed", range(4))
def test_a_generated_trace_is_like_the_measured_shop(seed: int) -> None:
    trace = generate(seed)

    baskets = sorted(len(order.lines) for order in trace.orders)
    units = sorted(qty for order in trace.orders for qty in order.lines.values())
    heat = sorted(Counter(sku for order in trace.orders for sku in order.lines).values(), reverse=True)
    repeated_rows = trace.lines - len(trace.returns) - sum(baskets)
    assert len(trace.orders) == 350
    assert 6_000 <= trace.lines <= 8_500  # measured: 7,393
    assert trace.malformed == ()
    assert 10 <= trace.lines_skipped <= 50  # measured: 26
    assert baskets[0] == 1
    assert 9 <= median(baskets) <= 14  # measured: 11
    assert 17 <= mean(baskets) <= 24  # measured: 20.2
    assert baskets[-1] > 200  # measured: 589
    assert 60 <= repeated_rows <= 400  # measured: 187
    assert 2 <= median(units) <= 5  # measured: 3
    assert 8 <= mean(units) <= 15  # measured: 10.5
    assert units[-1] >= 200  # measured: 2,880
    assert 1_700 <= len(heat) <= 2_000  # measured: 1,842
    assert 30 <= heat[0] <= 65  # measured: 45
    assert 0.3 <= sum(heat[: len(heat) // 10]) / sum(heat) <= 0.45  # measured: 0.37
    assert 60 <= len(trace.returns) <= 170  # measured: 113
    assert len({back.order_id for back in trace.returns}) == 65
    assert any(back.order_id.startswith("C") for back in trace.returns)
    assert len({order.ordered_at.date() for order in trace.orders}) == 3
    assert all(7 <= order.ordered_at.hour < 20 for order in trace.orders)


def test_a_generated_trace_has_the_asked_orders_and_days() -> None:
    trace = generate(1, orders=5, days=1)

    assert len(trace.orders) == 5
    assert {order.ordered_at.date() for order in trace.orders} == {datetime(2010, 12, 1, tzinfo=UTC).date()}


@pytest.mark.parametrize(("orders", "days"), [(0, 3), (5, 0), (-1, 3)])
def test_a_trace_of_nothing_is_refused(orders: int, days: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        generate(1, orders=orders, days=days)


CELLS = st.sampled_from(
    ["", "1", "-3", "0", "A1", "POST", "2010-12-01T09:00:00Z", "1e999999999", "NaN", '"', "\0", "\r"]
)
ROWS = st.lists(st.one_of(CELLS, st.text(max_size=12)), max_size=7).map(",".join)
FILES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(ROWS, max_size=12).map(lambda rows: "\n".join([HEADER, *rows]).encode("utf-8", "surrogatepass")),
)


@given(FILES)
@example(f"{HEADER}\n{GOOD}\n".encode())
def test_any_bytes_give_a_trace_that_accounts_for_them_or_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)

    try:
        trace = read(path)
    except TraceError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - Either outcome is right; both are looked at.
        return

    lines = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert rows_of(trace) == sum(bool(line.strip()) for line in lines) - 1
    assert all(qty > 0 for order in trace.orders for qty in order.lines.values())
    assert all(order.ordered_at.tzinfo is UTC for order in trace.orders)
    assert all(bad.field in {*COLUMNS, "row"} for bad in trace.malformed)


GOOD_CELLS = (st.just("1"), st.just("A1"), st.just("1"), st.just("2010-12-01T09:00:00Z"), st.just("1"))


@given(st.lists(st.tuples(*(st.one_of(good, CELLS, st.text(max_size=8)) for good in GOOD_CELLS)), max_size=8))
def test_arbitrary_cells_never_cost_the_good_row_beside_them(rows: list[tuple[str, ...]]) -> None:
    trace = trace_of("good,A1,1,2010-12-01T09:00:00Z,1", *(",".join(row) for row in rows))

    assert trace.orders
    assert rows_of(trace) == 1 + len(rows)

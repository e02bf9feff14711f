import traceback, threading
from datetime import timedelta
from db import inventory, reservations, engine
from db.checks import checked_id
from db.errors import *
from db.session import transaction
from db.settings import settings, Settings
from tests.factories import make_variant, make_variants, stock_of
from sqlalchemy import text
import pytest
pytestmark = pytest.mark.usefixtures("environ")
def attempt(name, f):
    try:
        print(name, "->", repr(f()))
    except BaseException as e:
        print(name, "->", type(e).__name__, str(e)[:300])
def tx(f, *a, **k):
    with transaction() as s:
        return f(s, *a, **k)
def test_all(monkeypatch):
    v = make_variant(stock=5)
    attempt("huge int id", lambda: tx(inventory.archive, 10**5000))
    attempt("list id bad qty", lambda: tx(inventory.receive, [1,"a"], 0))
    attempt("after False", lambda: inventory.reconcile(after=False))
    attempt("after 0.0", lambda: inventory.reconcile(after=0.0))
    attempt("after 0j", lambda: inventory.reconcile(after=0j))
    attempt("budget str", lambda: inventory.reconcile(budget="x"))
    attempt("budget max", lambda: inventory.reconcile(budget=timedelta.max))
    attempt("nested dup", lambda: tx(inventory.receive, v, float('nan')))
    deep=[]
    for _ in range(100000): deep=[deep]
    attempt("deep", lambda: tx(inventory.receive, deep, 1))
    for url in ["postgresql+psycopg://user:pa/ss@host/db", "postgresql+psycopg://u:hunter2@h:secretport/db"]:
        monkeypatch.setenv("HARBOR_DATABASE_URL", url); settings.cache_clear()
        attempt(url, settings)
    monkeypatch.undo()
def test_leak():
    with pytest.raises(Exception) as e, transaction() as s:
        for _ in range(2):
            s.execute(text("INSERT INTO products (sku,name,price_cents) VALUES (:s,'n',1)"), {"s": "secret-value"})
    print(str(e.value))
    with pytest.raises(Exception) as e, transaction() as s:
            s.execute(text("INSERT INTO products (sku,name,price_cents) VALUES (:s,'n',-1)"), {"s": "secret-value"})
    print(str(e.value))
def test_threads():
    engine.dispose()
    b = threading.Barrier(8); got=[]
    def go():
        b.wait(); got.append(engine.engine())
    ts=[threading.Thread(target=go) for _ in range(8)]
    [t.start() for t in ts]; [t.join() for t in ts]
    print("engines", len({id(g) for g in got}))
def test_many_due():
    a, b = make_variants(2, stock=0)
    with transaction() as s:
        inventory.receive(s, a, 1001); inventory.receive(s, b, 1)
    with transaction() as s:
        for i in range(1000): reservations.reserve(s, f"o{i}", {a: 1})
        reservations.reserve(s, "big", {a: 1})
        reservations.reserve(s, "ob", {b: 1})
        s.execute(text("UPDATE stock_reservations SET expires_at = statement_timestamp()"))
    attempt("basket", lambda: tx(reservations.reserve, "new", {a: 1, b: 1}))
    attempt("all", lambda: tx(reservations.reserve, "new2", {a: 1001}))

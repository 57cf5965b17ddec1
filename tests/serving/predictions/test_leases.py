"""Leases: one holder at a time, whatever happens to it."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.predictions.leases import Lease
from pneumo.serving.predictions.log_tables import leases
from pneumo.serving.predictions.store import LogStore

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LASTS = timedelta(seconds=60)


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """Two processes' views of one database."""
    url = f"sqlite:///{tmp_path_factory.mktemp('leases') / 'log.sqlite3'}"
    both = LogStore(url), LogStore(url)
    both[0].prepare()
    yield both
    for store in both:
        store.engine.dispose()


def forget(store: LogStore) -> None:
    with store.engine.begin() as connection:
        connection.execute(leases.delete())


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["take", "release"]), st.sampled_from([0, 1])),
            st.tuples(st.just("wait"), st.integers(0, 90)),
        ),
        max_size=25,
    )
)
def test_it_is_held_by_one_until_released_or_ended_by_time(stores, steps):
    forget(stores[0])
    now = NOW
    pair = [Lease(store, "drift", str(index), lasts=LASTS, clock=lambda: now) for index, store in enumerate(stores)]
    holder, until = None, NOW
    for what, value in steps:
        if what == "wait":
            now += timedelta(seconds=value)
        elif what == "release":
            pair[value].release()
            holder = None if holder == value else holder
        else:
            free = holder in (None, value) or until <= now
            assert pair[value].take() is free
            if free:
                holder, until = value, now + LASTS


def test_one_that_died_loses_it_when_its_time_is_over_and_one_that_renews_does_not(stores):
    forget(stores[0])
    now = NOW
    first, second = (Lease(store, "drift", str(id(store)), lasts=LASTS, clock=lambda: now) for store in stores)
    assert first.take()
    now += LASTS - timedelta(seconds=1)
    assert not second.take()
    assert first.take()
    now += LASTS - timedelta(seconds=1)
    assert not second.take()
    now += timedelta(seconds=1)
    assert second.take()
    assert not first.take()
    first.release()
    assert not first.take()


def test_leases_of_other_names_are_others(stores):
    forget(stores[0])
    assert Lease(stores[0], "drift", "a", lasts=LASTS).take()
    assert Lease(stores[1], "other", "b", lasts=LASTS).take()


def race(stores: list[LogStore]) -> int:
    """How many of some threads get a lease that all want at once."""
    barrier, got = threading.Barrier(len(stores)), []

    def ask(index: int, store: LogStore) -> None:
        lease = Lease(store, "drift", f"holder-{index}", lasts=LASTS)
        barrier.wait()
        got.append(lease.take())

    threads = [threading.Thread(target=ask, args=each) for each in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(stores)
    return sum(got)


def test_of_many_that_ask_at_once_one_gets_it(tmp_path):
    stores = [LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}") for _ in range(8)]
    stores[0].prepare()
    for _ in range(5):
        assert race(stores) == 1
        forget(stores[0])


@pytest.mark.slow
def test_it_is_the_same_over_postgresql_by_the_clock_of_the_database(postgres):
    stores = [LogStore(postgres.url) for _ in range(8)]
    stores[0].prepare()
    for _ in range(5):
        assert race(stores) == 1
        with stores[0].engine.connect() as connection:
            until = connection.execute(sa.select(leases.c.until)).scalar_one()
        assert timedelta() < until - datetime.now(UTC) < LASTS + timedelta(seconds=5)
        forget(stores[0])
    short = Lease(stores[0], "drift", "a", lasts=timedelta(milliseconds=1))
    assert short.take()
    with stores[1].engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_sleep(0.05)"))
    assert Lease(stores[1], "drift", "b", lasts=LASTS).take()
    assert not short.take()
    for store in stores:
        store.engine.dispose()

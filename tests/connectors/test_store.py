import pytest

from connectors.store import Store, StoreError
from pipeline.engine import Changes


def changes(states=(), names=None, progress=b"p"):
    return Changes(states=list(states), names=names or {}, progress=progress)


def test_what_is_committed_is_there_after_reopening(tmp_path):
    """States, names, progress and the driver's values survive."""
    with Store(tmp_path / "db") as store:
        store.commit(changes([("anna", b"1"), ("ben", b"2")], {7: "books"}), {"mine": b"v"})
    with Store(tmp_path / "db") as store:
        assert [b"1", None, b"2"] == store.load(["anna", "carl", "ben"])
        assert ("books", None) == (store.name(7), store.name(8))
        assert (b"p", b"v", None) == (store.progress(), store.get("mine"), store.get("other"))
        assert [("anna", b"1"), ("ben", b"2")] == list(store.states())


def test_a_later_commit_replaces_an_earlier_one(tmp_path):
    """The newest state counts."""
    with Store(tmp_path / "db") as store:
        store.commit(changes([("anna", b"1")]), {})
        store.commit(changes([("anna", b"2")], progress=b"q"), {})
        assert ([b"2"], b"q") == (store.load(["anna"]), store.progress())


def test_a_store_in_use_is_refused(tmp_path):
    """Two processes never write to one store."""
    with Store(tmp_path / "db"), pytest.raises(StoreError, match="cannot open the state store"):
        Store(tmp_path / "db")

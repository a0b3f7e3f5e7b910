import os
import subprocess

import pytest

from connectors.store import MEMORY, Store, StoreError
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


def test_a_store_that_was_there_has_the_shared_cache_and_filters(tmp_path):
    """RocksDB's own log says so: as for a new one, and not what it would take by default."""
    for _ in range(2):
        Store(tmp_path / "db").close()
        log = (tmp_path / "db/LOG").read_text().replace(" ", "")
        assert f"capacity:{MEMORY}" in log
        assert "filter_policy:bloomfilter" in log


def test_a_later_commit_replaces_an_earlier_one(tmp_path):
    """The newest state counts."""
    with Store(tmp_path / "db") as store:
        store.commit(changes([("anna", b"1")]), {})
        store.commit(changes([("anna", b"2")], progress=b"q"), {})
        assert ([b"2"], b"q") == (store.load(["anna"]), store.progress())


def test_users_are_looked_at_in_turn(tmp_path):
    """So many behind one at a time, deleted ones left out, nothing else among them."""
    users = ["a", "ab", "b", "é"]
    with Store(tmp_path / "db") as store:
        store.commit(changes([(user, b"1") for user in users], {7: "books"}), {"mine": b"v"})
        assert users == [user for user, _ in store.after("", 9)]
        assert ["ab", "b"] == [user for user, _ in store.after("a", 2)]
        store.commit(Changes(states=[], names={}, progress=b"p", gone=["ab", "nobody"]), {})
        assert ["b", "é"] == [user for user, _ in store.after("a", 9)]
        assert [] == store.after("é", 9)


def test_what_is_taken_in_at_once_stands_over_what_was_there(tmp_path):
    """In one file: new states, others in place of old ones, and deletions; then writes go on."""
    with Store(tmp_path / "db") as store:
        store.commit(changes([("anna", b"1"), ("ben", b"1"), ("carl", b"1")]), {})
        store.take_in({b"szoe": b"2", b"sanna": b"2", b"sben": None, b"snobody": None})
        assert [b"2", None, b"1", b"2"] == store.load(["anna", "ben", "carl", "zoe"])
        store.take_in({b"sanna": b"3"})
        store.commit(changes([("zoe", b"4")]), {})
    with Store(tmp_path / "db") as store:
        assert [("anna", b"3"), ("carl", b"1"), ("zoe", b"4")] == list(store.states())


def test_a_store_in_use_is_read_beside_whoever_writes(tmp_path):
    """As it was when it was opened; nothing can be written."""
    with Store(tmp_path / "db") as store:
        store.commit(changes([("anna", b"1")]), {})
        with Store(tmp_path / "db", read_only=True) as other:
            assert [b"1"] == other.load(["anna"])
            with pytest.raises(StoreError, match="cannot write"):
                other.commit(changes([("anna", b"2")]), {})
    with pytest.raises(StoreError, match="cannot open"):
        Store(tmp_path / "none", read_only=True)


def test_a_store_in_use_is_refused(tmp_path):
    """Two processes never write to one store."""
    with Store(tmp_path / "db"), pytest.raises(StoreError, match="cannot open the state store"):
        Store(tmp_path / "db")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_disk_that_fills_up_on_closing_loses_nothing(tmp_path):
    """What was committed is there again when there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        store = Store(disk / "db")
        state = os.urandom(1_000_000)
        store.commit(changes([("anna", state)]), {})
        with pytest.raises(StoreError, match="No space left"):
            store.close()
        del store
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        with Store(disk / "db") as store:
            assert [state] == store.load(["anna"])
    finally:
        subprocess.run(["umount", disk], check=True)

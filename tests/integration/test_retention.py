"""Silent users are forgotten, everywhere, whatever happens to the worker meanwhile."""

import shutil

import numpy as np
from clicks import DAY
from live import CORE, Live, Offline, shopping

FORGETFUL = CORE.replace("[interests]", '[interests]\nretention = "3d"')


def newest_values(records):
    return {record.key: record.value for record in records}


def test_silent_users_leave_disk_changelog_and_profiles(bootstrap, admin, tmp_path):
    """After a kill and on a new disk, too; who stays has the state that one plain pass gives."""
    batch = shopping(30, seed=3)
    users = np.array(batch.user.values)[batch.user.codes]
    gone = {f"user-{number}" for number in (7, 17, 27)}
    going = np.isin(users, list(gone))
    until = int(batch.time.max()) - 8 * DAY
    with Live(bootstrap, admin, tmp_path, FORGETFUL) as live:
        live.produce(batch.take(np.flatnonzero(going & (batch.time < until))))
        worker = live.start()
        live.wait_read()
        worker.kill()
        worker.wait()
        shutil.rmtree(tmp_path / "data")
        live.start()
        live.produce(batch.take(np.flatnonzero(~going)))
        live.wait_read()
        live.stop()
        offline = Offline(live)
        assert offline.alerts == live.alerts(of_users=True)
        assert gone < {user for state in offline.states.values() for user in state[2]}
        for number, (stamp, known, states) in offline.states.items():
            kept = {user: state for user, state in states.items() if user not in gone}
            assert (stamp, known, kept) == live.states()[number]
        changelog = newest_values(live.records(f"{live.kafka.group}-changelog"))
        profiles = newest_values(live.records("interest-profiles"))
        for user in gone:
            assert changelog[b"s" + user.encode()] is None
            assert profiles[user.encode()] is None

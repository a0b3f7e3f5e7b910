"""`driftline replay` as a user meets it: a process, files in, files out."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

DRIFTLINE = Path(sys.executable).with_name("driftline")
HOUR, DAY = 3600, 86_400

SMALL = """
[drift]
events_per_false_alarm = 100
[learning]
first_epochs = 1
epochs = 1
[learning.model]
dim = 16
max_length = 10
"""


def driftline(*arguments, **options):
    return subprocess.run(
        [DRIFTLINE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        **options,
    )


def shop(path, *, weeks, users=30, seed=1):
    """Write a shop's clicks: every user changes from one set of categories to another."""
    rng = random.Random(seed)
    rows = []
    for user in range(users):
        change = rng.uniform(0.3, 0.7) * weeks * 7 * DAY
        for _ in range(weeks * 40):
            at = rng.uniform(0, weeks * 7 * DAY)
            category = rng.choice("abc" if at < change else "xyz")
            rows.append(
                (1_600_000_000 + int(at), f"u{user}", f"{category}{rng.randrange(9)}", category)
            )
    rows.sort()
    lines = ["timestamp,user_id,item_id,category", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def outcome(out):
    """Return what a run leaves, what depends on the clock left out."""
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in metrics:
        del line["training_seconds"]
    checkpoints = out / "checkpoints"
    return {
        "alerts": (out / "alerts.jsonl").read_text(),
        "rejects": (out / "rejects.jsonl").read_text(),
        "rollups": (out / "rollups.jsonl").read_text(),
        "forecasts": (out / "forecasts.jsonl").read_text(),
        "interests": sorted(
            pq.read_table(out / "interests").to_pylist(),
            key=lambda row: (row["user_id"], row["time"]),
        ),
        "segments": pq.read_table(out / "segments.parquet").to_pylist(),
        "flows": pq.read_table(out / "segment_flows.parquet").to_pylist(),
        "profiles": pq.read_table(out / "profiles.parquet").to_pylist(),
        "metrics": metrics,
        "checkpoints": sorted(p.name for p in checkpoints.glob("*"))
        if checkpoints.exists()
        else [],
    }


def kill_until_done(arguments, out, *, kills, within, seed):
    """Run with --resume, killed so many times at random moments; return how many hit it alive."""
    rng = random.Random(seed)
    hit = 0
    for _ in range(kills):
        process = subprocess.Popen(
            [DRIFTLINE, *map(str, arguments), "--out", out, "--resume"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        # The run itself begins when its directory has been made.
        deadline = time.monotonic() + 60
        while not (out / "state").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, within))
        process.send_signal(signal.SIGKILL)
        hit += process.wait() == -signal.SIGKILL
    last = driftline(*arguments, "--out", out, "--resume")
    assert 0 == last.returncode, last.stderr
    return hit


@pytest.mark.parametrize(
    ("learning", "kills", "within"), [(False, 6, 2.5), (True, 5, 8.0)], ids=["interest", "learning"]
)
def test_a_killed_run_resumed_leaves_what_an_unkilled_one_leaves(tmp_path, learning, kills, within):
    """kill -9 at random moments, then --resume: the same alerts, profiles, metrics, checkpoints."""
    weeks = 4 if learning else 40
    clicks = shop(tmp_path / "clicks.csv", weeks=weeks)
    with clicks.open("a") as file:
        file.write("never,u1,a1,a\n")
    settings = tmp_path / "settings.toml"
    settings.write_text(SMALL)
    arguments = ["replay", clicks, "--settings", settings]
    arguments += [] if learning else ["--no-learning"]
    whole = driftline(*arguments, "--out", tmp_path / "whole")
    assert 0 == whole.returncode, whole.stderr
    hit = kill_until_done(arguments, tmp_path / "killed", kills=kills, within=within, seed=7)
    assert hit > 0
    expected = outcome(tmp_path / "whole")
    assert expected["alerts"]
    assert (weeks + 1 if learning else 0) >= len(expected["metrics"]) >= (weeks if learning else 0)
    assert expected == outcome(tmp_path / "killed")


def test_a_replay_leaves_all_that_it_promises(tmp_path):
    """Alerts, profiles, metrics, checkpoints with a champion, summary and report."""
    clicks = shop(tmp_path / "clicks.csv", weeks=3)
    settings = tmp_path / "settings.toml"
    settings.write_text(SMALL)
    out = tmp_path / "out"
    done = driftline("replay", clicks, "--settings", settings, "--out", out)
    assert 0 == done.returncode, done.stderr
    assert str(out / "report.html") in done.stdout
    champion = (out / "checkpoints" / "champion").read_text()
    assert {"manifest.json", "model.safetensors", "vocabulary.json"} == {
        path.name for path in (out / "checkpoints" / champion).iterdir()
    }
    summary = json.loads((out / "summary.json").read_text())
    assert 30 == summary["users"]
    assert 3600 == summary["events"] == summary["applied"]
    assert {"user_jump", "user_migration"} & set(summary["alerts"])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {
        "window_start", "window_end", "events", "evaluated", "recall@20", "mrr@20", "ndcg@10",
        "popularity", "markov", "knn", "cold_inclusive", "repeat_free", "training_seconds",
        "decision",
    } <= set(lines[-1])  # fmt: skip
    assert "<html" in (out / "report.html").read_text()

    shown = driftline("inspect", "u3", "--out", out)
    assert 0 == shown.returncode
    assert "drift history" in shown.stdout
    assert 6 == driftline("inspect", "nobody", "--out", out).returncode
    listed = driftline("checkpoint", "list", "--out", out)
    assert f"{champion} (champion)" in listed.stdout
    assert 0 == driftline("checkpoint", "verify", "--out", out).returncode
    weights = out / "checkpoints" / champion / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    verified = driftline("checkpoint", "verify", "--out", out)
    assert 7 == verified.returncode
    assert "damaged" in verified.stderr


def test_a_directory_of_another_run_is_left_alone(tmp_path):
    """Neither a finished replay nor a stranger's files are written over unasked."""
    clicks = shop(tmp_path / "clicks.csv", weeks=1)
    other = shop(tmp_path / "other.csv", weeks=2)
    out = tmp_path / "out"
    assert 0 == driftline("replay", clicks, "--no-learning", "--out", out).returncode
    again = driftline("replay", clicks, "--no-learning", "--out", out)
    assert 4 == again.returncode
    assert "--resume" in again.stderr
    wrong = driftline("replay", other, "--no-learning", "--out", out, "--resume")
    assert 4 == wrong.returncode
    assert "holds another run (inputs:" in wrong.stderr
    assert 0 == driftline("replay", clicks, "--no-learning", "--out", out, "--resume").returncode
    over = driftline("replay", other, "--no-learning", "--out", out, "--overwrite")
    assert 0 == over.returncode
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "diary.txt").write_text("private")
    refused = driftline("replay", clicks, "--out", strange)
    assert 4 == refused.returncode
    assert "is not empty" in refused.stderr
    (strange / "run.json").write_text('{"speed": 9}')
    for option in ("--overwrite", "--resume"):
        refused = driftline("replay", clicks, "--out", strange, option)
        assert 4 == refused.returncode
        assert "is not of a replay" in refused.stderr
    assert "private" == (strange / "diary.txt").read_text()


def test_late_events_are_counted_and_sort_takes_them_in(tmp_path):
    """A file out of order loses nothing unsaid."""
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("timestamp,user_id,item_id\n1600000000,u,a\n1600900000,u,b\n1600000001,u,c\n")
    streamed = driftline("replay", clicks, "--no-learning", "--out", tmp_path / "streamed")
    assert "--sort" in streamed.stdout
    summary = json.loads((tmp_path / "streamed" / "summary.json").read_text())
    assert (2, 1) == (summary["applied"], summary["late"])
    driftline("replay", clicks, "--no-learning", "--sort", "--out", tmp_path / "sorted")
    summary = json.loads((tmp_path / "sorted" / "summary.json").read_text())
    assert (3, 0) == (summary["applied"], summary["late"])


def test_limit_stops_after_so_many_events(tmp_path):
    """The first events alone are replayed."""
    clicks = shop(tmp_path / "clicks.csv", weeks=1)
    driftline("replay", clicks, "--no-learning", "--limit", 100, "--out", tmp_path / "out")
    assert 100 == json.loads((tmp_path / "out" / "summary.json").read_text())["applied"]


BAD_FILES = {
    "empty": (b"", 3, "empty"),
    "header alone": (b"timestamp,user_id,item_id\n", 3, "no events"),
    "missing column": (b"timestamp,user_id,colour\n1600000000,u,red\n", 3, "--map item="),
    "wrong delimiter": (b"timestamp#user_id#item_id\n1600000000#u#a\n", 3, "--map"),
    "truncated gzip": (None, 3, "clicks.csv.gz"),
    "not parquet": (b"PAR1 nonsense", 3, "clicks.parquet"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_clear_error(tmp_path, case):
    """No traceback, a documented exit code, and the file's name."""
    content, code, message = BAD_FILES[case]
    name = {"truncated gzip": "clicks.csv.gz", "not parquet": "clicks.parquet"}.get(case, "c.csv")
    path = tmp_path / name
    if content is None:
        plain = shop(tmp_path / "plain.csv", weeks=2)
        content = gzip.compress(plain.read_bytes())[:-2000]
    path.write_bytes(content)
    done = driftline("replay", path, "--no-learning", "--out", tmp_path / "out")
    assert code == done.returncode, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_lines_are_rejected_with_line_and_reason_and_the_rest_goes_on(tmp_path):
    """Every unusable record is in rejects.jsonl, every usable one is applied."""
    lines = [
        b"timestamp,user_id,item_id",
        b"1600000000,u1,a",
        b"-5,u1,a",
        b"253402300799,u1,a",
        b"nan,u1,a",
        b"1600000001,u1," + b"x" * 10_000_000,
        b"1600000002," + b"u" * 100_000 + b",a",
        b"1600000003,u\xff,a",
        b"1600000004,u1",
        b"1600000005,u1,b",
    ]
    path = tmp_path / "clicks.csv"
    path.write_bytes(b"\n".join(lines) + b"\n")
    out = tmp_path / "out"
    done = driftline("replay", path, "--no-learning", "--out", out)
    assert 0 == done.returncode, done.stderr
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [3, 4, 5, 6, 7, 8, 9] == [reject["line"] for reject in rejects]
    assert all(reject["reason"] for reject in rejects)
    assert all(len(reject["record"]) <= 2100 for reject in rejects)
    summary = json.loads((out / "summary.json").read_text())
    assert (9, 2, 7) == (summary["events"], summary["applied"], summary["rejected"])


def test_segments_and_an_audience_of_those_who_moved(tmp_path):
    """Everyone goes from a, b, c to x, y, z: the flows say so, and a campaign can take who did."""
    out, audience = tmp_path / "out", tmp_path / "audience.parquet"
    driftline("replay", shop(tmp_path / "clicks.csv", weeks=8), "--no-learning", "--out", out)
    shown = driftline("segments", "--out", out)
    assert 0 == shown.returncode, shown.stderr
    assert "largest flows in 4 windows" in shown.stdout
    users = pq.read_table(out / "segments.parquet").to_pylist()
    assert 30 == len(users)
    assert sum(user["segment"] in "xyz" for user in users) > 20
    asked = ("segments", "--out", out, "--to", audience, "--within", "42d", "--moved-into")
    done = driftline(*asked, "x")
    assert 0 == done.returncode, done.stderr
    rows = pq.read_table(audience).to_pylist()
    assert 20 < len(rows) <= 30
    assert {"x"} == {row["category"] for row in rows}
    assert all(row["share_after"] >= 2 * row["share_before"] + 0.05 for row in rows)
    assert f"Wrote {audience}: {len(rows)} users moved into x" in done.stdout.replace("\n", " ")
    assert 6 == driftline(*asked, "quux").returncode
    assert 4 == driftline("segments", "--out", tmp_path / "nowhere").returncode


def test_an_output_directory_that_cannot_be_written_is_named(tmp_path):
    """A file where the directory should be, and a path below it, are refused clearly."""
    clicks = shop(tmp_path / "clicks.csv", weeks=1)
    (tmp_path / "file").write_text("")
    done = driftline("replay", clicks, "--no-learning", "--out", tmp_path / "file" / "out")
    assert 4 == done.returncode
    assert "cannot write to" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_stops_loudly_and_the_run_resumes_when_there_is_room(tmp_path):
    """Exit code 4 and the reason; after the disk has grown the result is whole."""
    clicks = shop(tmp_path / "clicks.csv", weeks=30, users=120)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        out = disk / "out"
        full = driftline("replay", clicks, "--no-learning", "--out", out)
        assert 4 == full.returncode, full.stderr
        assert "No space left" in full.stderr
        assert "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        resumed = driftline("replay", clicks, "--no-learning", "--out", out, "--resume")
        assert 0 == resumed.returncode, resumed.stderr
        whole = tmp_path / "whole"
        driftline("replay", clicks, "--no-learning", "--out", whole)
        assert outcome(whole) == outcome(out)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_detector_of_rivers_takes_the_place_of_ours(tmp_path):
    """`--detector river:adwin` raises its own alerts; an unknown one leaves nothing behind."""
    clicks = shop(tmp_path / "clicks.csv", weeks=8, users=4)
    out = tmp_path / "out"
    common = ("replay", clicks, "--no-learning", "--out", out)
    wrong = driftline(*common, "--detector", "river:magic")
    assert (5, False) == (wrong.returncode, out.exists())
    assert "river:adwin" in wrong.stderr
    done = driftline(*common, "--detector", "river:adwin")
    assert 0 == done.returncode, done.stderr
    alerts = [json.loads(line) for line in (out / "alerts.jsonl").read_text().splitlines()]
    users = [alert for alert in alerts if alert["kind"].startswith("user")]
    assert {"none"} >= {alert["guarantee"]["kind"] for alert in users}


def test_a_user_is_erased_from_a_replay(tmp_path):
    """From every file, and nobody else from any; the checkpoints that saw the user are named."""
    file, out = shop(tmp_path / "shop.csv", weeks=4), tmp_path / "out"
    settings = tmp_path / "small.toml"
    settings.write_text(SMALL)
    assert 0 == driftline("replay", file, "--out", out, "--settings", settings).returncode
    found = driftline("erase", "u3", "--out", out, "--verify")
    assert 9 == found.returncode, found.stderr
    assert f"REMAINS  {out / 'profiles.parquet'}  1" in found.stdout
    before = pq.read_table(out / "profiles.parquet")["user_id"].to_pylist()
    told = driftline("erase", "u3", "--out", out)
    assert 0 == told.returncode, told.stdout + told.stderr
    assert "REMAINS" not in told.stdout
    made = {path.parent.name for path in out.glob("checkpoints/*/manifest.json")}
    named = [line.split()[1] for line in told.stdout.splitlines() if "Checkpoint" in line]
    assert set(named) == made
    after = pq.read_table(out / "profiles.parquet")["user_id"].to_pylist()
    assert [user for user in before if user != "u3"] == after
    alerts = [
        json.loads(line)["subject"] for line in (out / "alerts.jsonl").read_text().splitlines()
    ]
    assert "u3" not in alerts
    assert "u4" in alerts
    again = driftline("erase", "u3", "--out", out)
    assert 0 == again.returncode
    assert 6 == driftline("inspect", "u3", "--out", out).returncode
    assert 0 == driftline("inspect", "u4", "--out", out).returncode
    assert 4 == driftline("erase", "u3", "--out", tmp_path / "none").returncode

"""The backtest's page: what is written, and what a real browser makes of it."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import msgspec
import pytest
from report_fixture import HOSTILE, alerts, write_backtest

from connectors.report import report_data, write_report
from connectors.run_error import RunError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--virtual-time-budget=5000", "--window-size=1400,1000"),
)


class Rendered(HTMLParser):
    """The elements that a browser was left with, and the text of some."""

    def __init__(self, dom):
        super().__init__()
        self.elements = []
        self.text = ""
        self.hidden = False
        self.feed(dom)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.hidden = tag in {"script", "style"}

    def handle_endtag(self, tag):
        self.hidden = self.hidden and tag not in {"script", "style"}

    def handle_data(self, data):
        self.text += "" if self.hidden else data

    def count(self, tag, name=""):
        return sum(
            tag == found and (not name or name in (attributes.get("class") or "").split())
            for found, attributes in self.elements
        )

    def attributes(self, tag, **wanted):
        found = [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]
        return found[0] if found else {}


@pytest.fixture
def browse(tmp_path, capsys):
    """A function that opens a page in a headless browser and gives what stands there then."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    if binary is None:
        missing = f"none of {', '.join(BROWSERS)} is here: the page was opened in NO browser"
        if os.environ.get("CI"):
            pytest.fail(missing)
        with capsys.disabled():
            sys.stderr.write(f"\nSKIPPED: {missing}\n")
        pytest.skip(missing)

    def open_page(page, fragment=""):
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [binary, *FLAGS, profile, "--dump-dom", f"{page.as_uri()}{fragment}"]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True)
        rendered = Rendered(done.stdout.decode())
        state = rendered.attributes("html")
        assert ("ready", None) == (state.get("data-report"), state.get("data-error"))
        return rendered

    return open_page


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    """The page of a year's backtest."""
    directory = tmp_path_factory.mktemp("year")
    write_backtest(directory)
    return write_report(directory)


def write_alerts(directory, told):
    (directory / "alerts.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(told))


def test_the_page_is_one_file_that_asks_nobody_for_anything(year):
    """No address, import or font leads out of the file, and it stays small enough to send."""
    page = year.read_text()
    assert [] == re.findall(r"""(?:src|href)=["'](?!#)[^"']*""", page)
    assert [] == re.findall(r"@import|@font-face|url\(|import\(|fetch\(", page)
    assert {"http://www.w3.org/2000/svg"} == set(re.findall(r"https?://[^\"'\s<]+", page))
    assert year.stat().st_size < 1_600_000


def test_the_same_backtest_gives_the_same_page(year):
    """Nothing but the backtest's files decides about the page's bytes."""
    before = year.read_bytes()
    assert before == write_report(year.parent).read_bytes()


def test_a_folder_without_a_backtest_is_refused(tmp_path):
    """The error names the folder and the command that fills it."""
    with pytest.raises(FileNotFoundError, match="driftline replay"):
        write_report(tmp_path)


def test_a_broken_line_is_named(tmp_path):
    """The error says which line of which file cannot be read."""
    (tmp_path / "rejects.jsonl").write_text('{"reason": "x"}\n{"reason"\n')
    with pytest.raises(RunError, match=r"rejects\.jsonl, line 2"):
        write_report(tmp_path)


def test_empty_files_are_an_empty_backtest(tmp_path):
    """A replay that ended at once still has a page's worth of data."""
    for name in ("summary.json", "alerts.jsonl", "metrics.jsonl", "rejects.jsonl"):
        (tmp_path / name).touch()
    data = report_data(tmp_path)
    assert ({}, [], {}, []) == (
        *(data["summary"], data["starts"], data["alerts_by_window"]),
        data["alerts"]["rows"],
    )


def test_every_section_is_drawn(year, browse):
    """The browser ends with lines, bars, bands, a heat map, alerts, champions and rejects."""
    page = browse(year)
    assert 6 == page.count("path", "line")
    assert 52 == page.count("circle", "promoted") + page.count("path", "rejected")
    assert page.count("rect", "bar-part") > 150
    assert page.count("path", "band") > 50
    assert 8 == page.count("path", "size")
    assert "moves between segments in the last 4 windows" in page.text
    assert sum(52 - asked for asked in range(0, 52, 4)) == page.count("rect", "heat")
    assert 12 == page.count("path", "spark")
    assert 12 == page.count("path", "spark-band")
    assert 12 == page.count("path", "spark-ahead")
    assert "How the forecasts stood up" in page.text
    assert 20 == page.count("details", "alert")
    assert 52 == page.count("span", "decision")
    assert 4 == page.count("details", "reject")
    assert 7 == page.count("div", "tile")
    assert 0 == page.count("div", "empty")
    assert "1,299 more stand in alerts.jsonl" in page.text


def test_what_many_did_at_once_is_said_in_a_sentence(year, browse):
    """A population shift names its size, a broken input what is missing."""
    page = browse(year, "#kind=population_shift,input_drift")
    assert "About 195 of 1,516 users moved at once: sport/ski 5.0 % → 21 %" in page.text
    assert "What comes in differs: type view 71 % → 0 %, volume 100 % → 30 %." in page.text


def test_the_address_carries_a_search(year, browse):
    """Words, kind and user in the fragment filter the list as the fields would."""
    page = browse(year, "#q=pets%2Fcats+beauty&kind=user_jump&user=household-1")
    packed = report_data(year.parent)["alerts"]
    wanted = {packed["categories"].index(name) for name in ("pets/cats", "beauty/skin")}
    expected = sum(
        packed["kinds"][row[0]] == "user_jump"
        and "household-1" in row[1]
        and wanted <= {code for code, _ in row[4] + row[5]} | {code for *_, code in row[9]}
        for row in packed["rows"]
    )
    assert expected > 20
    assert str(expected) == page.attributes("div", id="alert-list")["data-found"]
    assert 20 == page.count("details", "alert")


def test_a_search_without_hits_says_so(year, browse):
    """The list stays, with a word instead of rows."""
    page = browse(year, "#q=nothing-has-this-name")
    assert "0" == page.attributes("div", id="alert-list")["data-found"]
    assert "Nothing matches" in page.text


def test_names_from_the_data_are_text_not_markup(tmp_path, browse):
    """A script in an item, a category, a user or a reason is shown and never run."""
    alert = next(alert for alert in alerts(40) if alert.kind == "user_jump")
    hostile = msgspec.structs.replace(
        alert,
        subject=HOSTILE,
        before=[msgspec.structs.replace(alert.before[0], category=HOSTILE)],
        after=[msgspec.structs.replace(alert.after[0], category="{{script}}<!--<script>")],
        evidence=[msgspec.structs.replace(alert.evidence[0], item_id=HOSTILE)],
    )
    write_alerts(tmp_path, [hostile])
    reject = {"source": HOSTILE, "line": 1, "reason": HOSTILE, "record": HOSTILE}
    (tmp_path / "rejects.jsonl").write_bytes(msgspec.json.encode(reject))
    page = write_report(tmp_path)
    assert HOSTILE not in page.read_text()
    rendered = browse(page)
    assert "data-hacked" not in rendered.attributes("html")
    assert HOSTILE in rendered.text
    assert 3 == rendered.count("script")


def test_what_is_missing_is_said_kindly(tmp_path, browse):
    """Without learning, alerts, trends and rejects each section has a word instead of a chart."""
    (tmp_path / "summary.json").write_text('{"events": 0, "applied": 0, "late": 0}')
    page = browse(write_report(tmp_path))
    assert 8 == page.count("div", "empty")
    assert 1 == page.count("svg")
    assert "No model was trained" in page.text


def test_alerts_alone_make_a_page(tmp_path, browse):
    """Where no windows are known the weeks of the alerts stand in."""
    write_alerts(tmp_path, alerts(30))
    page = browse(write_report(tmp_path))
    assert page.count("rect", "bar-part") > 20
    assert page.count("path", "band") > 5
    assert "too small to be followed here" in page.text

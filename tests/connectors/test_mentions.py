"""What of a rejects file is erased with a user."""

import json
from base64 import b64encode

import pytest

from connectors.mentions import mentions
from connectors.wire import EXCERPT

CUT = '{"page":"' + "x" * (EXCERPT - 11)
EVENT = '{"specversion": "1.0", "data_base64": "%s"}'
LONG = b64encode(b'{"page": "%b", "user_id": "annabella"}' % (b"x" * 315)).decode()
BASE64_CUT = EVENT.replace("1.0", " 1.0") % LONG  # " 1.0" has the cut fall on whole bytes

MENTIONED = {
    "as JSON escapes it": (r'{"user_id": "\u00e9va", "timestamp": "x"}', "éva", "c.jsonl"),
    "in a pair of escapes": (r'{"user_id": "\ud83d\ude00", "timestamp": "x"}', "😀", "c.jsonl"),
    "by the session": ('{"session_id": "s77", "timestamp": "x"}', "session:s77", "c.jsonl"),
    "as a number": ('{"user_id": 7.0, "timestamp": "x"}', "7", "c.jsonl"),
    "in a nested object": ('{"data": {"user": {"id": "7"}}}', "7", "clicks/0"),
    "under a repeated key": ('{"user_id": "7", "user_id": "8"}', "7", "c.jsonl"),
    "in base64": (EVENT % b64encode(b'{"user_id": "7"}').decode(), "7", "clicks/0"),
    "in base64 that breaks off": (EVENT % "abc", "7", "clicks/0"),
    "in base64 cut within the name": (BASE64_CUT[:EXCERPT], "annabella", "c.jsonl"),
    "in broken JSON": ('{"user_id": "7", "item_id": ', "7", "clicks/0"),
    "escaped in broken JSON": (r'{"user_id": "\u00e9va", "item_id": ', "éva", "c.jsonl"),
    "in CSV": ("never,7,a", "7", "c.csv"),
    "in a short row of CSV": ("never;7", "7", "c.csv.gz"),
    "in CSV with quotes": ('never,"a ""b"" c",a', 'a "b" c', "c.csv"),
    "in CSV with an open quote": ('never,7,"a', "7", "c.csv"),
    "in a line of CSV that is no row": ("user 7 was here", "7", "c.csv"),
    "in CSV that is not UTF-8": (r"never,\xe9va,a", "éva", "c.csv"),
    "in a row of Parquet": ("timestamp: never, user_id: 7, item_id: a", "7", "c.parquet"),
    "with a comma in Parquet": ("timestamp: never, user_id: a, b", "a, b", "c.parquet"),
    "where the record was cut": (CUT + '"an', "anna", "clicks/0"),
    "by a name of signs": ("timestamp: never, user_id: x!", "!", "c.parquet"),
}
OTHERS = {
    "part of another user": ('{"user_id": "17", "timestamp": "x"}', "7", "c.jsonl"),
    "part of a session": ('{"session_id": "s77", "timestamp": "x"}', "7", "c.jsonl"),
    "a part of a time": ('{"user_id": "8", "timestamp": "2020-13-01"}', "2020", "c.jsonl"),
    "another null": ('{"user_id": "8", "item_id": null}', "None", "c.jsonl"),
    "part of a time in CSV": ("2020-13-01,8,a", "2020", "c.csv"),
    "part of another in CSV": ("never,17,a", "7", "c.csv"),
    "part of another in broken JSON": ('{"user_id": "17", "item_id": ', "7", "clicks/0"),
    "part of another in Parquet": ("timestamp: never, user_id: 17", "7", "c.parquet"),
    "nobody": ('{"user_id": "", "timestamp": "x"}', "session:", "c.jsonl"),
    "another where the record was cut": (CUT + '"ben', "anna", "clicks/0"),
}


@pytest.mark.parametrize("case", MENTIONED)
def test_a_mention_is_found(case):
    """However the record is written, nothing of the user stays."""
    record, user, source = MENTIONED[case]
    assert mentions(record, user, source=source)


@pytest.mark.parametrize("case", OTHERS)
def test_what_only_looks_like_the_user_stays(case):
    """Another user's record is not taken for a part that is alike."""
    record, user, source = OTHERS[case]
    assert not mentions(record, user, source=source)


def test_whatever_json_writes_is_found():
    """Any text that JSON can hold is known in its escaped form."""
    for user in ('a"b', "a\\b", "tab\there", "\u2028", "用户7"):
        assert mentions(json.dumps({"user_id": user}), user, source="c.jsonl")
        assert mentions(json.dumps({"user_id": user})[:-1] + ",", user, source="c.jsonl")

"""Which column of a foreign layout is which of our fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pipeline.settings import SettingsError

FIELDS = {
    "user": "user_id",
    "item": "item_id",
    "timestamp": "timestamp",
    "type": "event_type",
    "category": "category",
    "session": "session_id",
    "price": "price",
    "event_id": "event_id",
}
"""The short name of each field, as a map may write it -> the field of `events.Click`."""

# Names that columns go by, the likeliest first, in lower case and without punctuation.
_KNOWN = {
    "user_id": (
        "userid user visitorid customerid customer clientid memberid accountid buyerid"
        " householdid uid visitor household"
    ),
    "item_id": (
        "itemid item productid product articleid sku movieid trackid songid contentid newsid"
        " stockcode iid"
    ),
    "timestamp": (
        "timestamp ts time eventtime eventtimestamp transactiontimestamp datetime createdat"
        " occurredat eventdate invoicedate date unixtime"
    ),
    "event_type": "eventtype type event behavior behaviour behaviortype action actiontype",
    "category": "category categorycode categorypath categoryid categoryname genre department cat",
    "session_id": "sessionid session usersession basketid basket visitid orderid invoice sid",
    "price": "price",
    "event_id": "eventid eventuuid messageid",
}

_SHOWN = 40


class LayoutError(ValueError):
    """A column that is needed was not found; the message lists those there are."""


def full_names(given: Mapping[str, str]) -> dict[str, str]:
    """Return a map with our fields' names in full: "user" and "user_id" are the same."""
    full: dict[str, str] = {}
    for name, column in given.items():
        field = FIELDS.get(name, name)
        if field not in FIELDS.values():
            raise SettingsError(
                f"source.map: {name!r} is none of our fields; they are {', '.join(FIELDS)}"
            )
        if field in full:
            raise SettingsError(f"source.map: {field} is given twice, as {name!r} too")
        full[field] = column
    return full


def recognise(columns: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """Find the column of each field: as the map says, else by the names columns often go by.

    Args:
        columns: The names there are.
        given: Our field -> their column; fields it leaves out are looked for.

    Returns:
        Our field, by its full name -> their column, of the fields found.

    Raises:
        LayoutError: the map names a column that is not there, or item, timestamp, or both user
            and session are not found.
    """
    columns = list(columns)
    found = full_names(given)
    for field, column in found.items():
        if column not in columns:
            raise LayoutError(f"there is no column {column!r} for {field}. {_listed(columns)}")
    plain = {re.sub(r"[\W_]", "", column).lower(): column for column in reversed(columns)}
    for field, names in _KNOWN.items():
        known = next((plain[name] for name in names.split() if name in plain), None)
        if known is not None:
            found.setdefault(field, known)
    _require(found, columns)
    return found


def _require(found: Mapping[str, str], columns: list[str]) -> None:
    lacking = [short for short in ("item", "timestamp") if FIELDS[short] not in found]
    if "user_id" not in found and "session_id" not in found:
        lacking.insert(0, "user")
    if lacking:
        raise LayoutError(
            f"no column is known to hold {' or '.join(lacking)}. {_listed(columns)} "
            f"Name it: {' '.join(f'--map {short}=COLUMN' for short in lacking)}"
        )


def _listed(columns: list[str]) -> str:
    listed = ", ".join(column[:_SHOWN] for column in columns[:_SHOWN])
    return f"Its columns are: {listed}{', ...' if len(columns) > _SHOWN else ''}."

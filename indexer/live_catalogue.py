"""Items and users as their catalogue topics last said, ready for the rules of ranking."""

import threading

import numpy as np
import numpy.typing as npt

from indexer.item_numbers import ItemNumbers
from rheos.catalogue import Item, UserAttributes, decode_item, decode_user
from rheos.state import Float64s, Int64s

NO_CATEGORY = -1
_NO_LABEL: tuple[str | None, float | None] = (None, None)


class LiveCatalogue:
    """The latest records, encoded, and arrays by item number. One thread puts, any reads.

    ``available``, ``categories`` and ``prices`` (n,), NaN where there is none, may be shorter than
    the numbers: an item beyond their end is in no catalogue, so it is available and of no category
    or price. They are replaced when they grow; take a reference once per query.
    """

    def __init__(self, numbers: ItemNumbers) -> None:
        self._numbers = numbers
        self._items: dict[str, bytes] = {}
        self._users: dict[str, bytes] = {}
        self._labels: dict[str, tuple[str | None, float | None]] = {}
        self._deleted: set[str] = set()
        self._codes: dict[str, int] = {}
        self._lock = threading.Lock()
        self.available: npt.NDArray[np.bool_] = np.ones(1024, bool)
        self.categories: npt.NDArray[np.int32] = np.full(1024, NO_CATEGORY, np.int32)
        self.prices: Float64s = np.full(1024, np.nan)

    def __len__(self) -> int:
        return len(self._items)

    def put_item(self, item_id: str, value: bytes) -> None:
        """Raises InvalidRecordError; the item then stays as it was."""
        item = decode_item(value)
        number = self._room(item_id)
        code = NO_CATEGORY
        if item.category:
            code = self._codes.setdefault(item.category, len(self._codes))
        with self._lock:
            self._items[item_id] = value
            self._deleted.discard(item_id)
            self._labels.pop(item_id, None)
            if item.deleted:
                self._deleted.add(item_id)
            elif item.title or item.price is not None:
                self._labels[item_id] = (item.title or None, item.price)
        self.available[number] = item.available and not item.deleted
        self.categories[number] = code
        self.prices[number] = np.nan if item.price is None else item.price

    def remove_item(self, item_id: str) -> None:
        """A tombstone: off sale for as long as this process knows of it."""
        number = self._room(item_id)
        with self._lock:
            self._items.pop(item_id, None)
            self._labels.pop(item_id, None)
            self._deleted.add(item_id)
        self.available[number] = False
        self.categories[number] = NO_CATEGORY
        self.prices[number] = np.nan

    def put_user(self, user_id: str, value: bytes) -> None:
        """Raises InvalidRecordError."""
        decode_user(value)
        self._users[user_id] = value

    def remove_user(self, user_id: str) -> None:
        self._users.pop(user_id, None)

    def item(self, item_id: str) -> Item | None:
        """The item's record, or None if there is none or it is deleted."""
        value = self._items.get(item_id)
        item = None if value is None else decode_item(value)
        return None if item is None or item.deleted else item

    def item_record(self, item_id: str) -> bytes | None:
        """The item's record as it came, deleted or not; the same object until it changes."""
        return self._items.get(item_id)

    def user(self, user_id: str) -> UserAttributes | None:
        value = self._users.get(user_id)
        return None if value is None else decode_user(value)

    def is_deleted(self, item_id: str) -> bool:
        return item_id in self._deleted

    def title(self, item_id: str) -> str | None:
        return self.label(item_id)[0]

    def label(self, item_id: str) -> tuple[str | None, float | None]:
        """An item's title and price, as far as the catalogue says."""
        return self._labels.get(item_id, _NO_LABEL)

    def prices_of(self, numbers: Int64s) -> Float64s:
        """Prices (n,) of items; NaN for those that have none."""
        prices = self.prices
        inside = (numbers >= 0) & (numbers < len(prices))
        return np.where(inside, prices[np.where(inside, numbers, 0)], np.nan)

    def category_code(self, category: str) -> int | None:
        """What ``categories`` holds for a category, or None if no item has it."""
        return self._codes.get(category)

    def find(self, words: str, most: int) -> list[str]:
        """Ids of items with all of ``words`` in title or id, at most ``most``. Scans all titles."""
        wanted = words.lower().split()
        with self._lock:
            labels = list(self._labels.items())
        found: list[str] = []
        for item_id, (title, _) in labels:
            text = f"{item_id} {title or ''}".lower()
            if all(word in text for word in wanted):
                found.append(item_id)
                if len(found) == most:
                    break
        return found

    def _room(self, item_id: str) -> int:
        number = self._numbers.add(item_id)
        if number >= len(self.available):
            size = max(2 * len(self.available), number + 1)
            available = np.ones(size, bool)
            available[: len(self.available)] = self.available
            categories = np.full(size, NO_CATEGORY, np.int32)
            categories[: len(self.categories)] = self.categories
            prices = np.full(size, np.nan)
            prices[: len(self.prices)] = self.prices
            self.prices = prices
            # In this order: a reader takes `available` first and never finds it the longer one.
            self.categories = categories
            self.available = available
        return number

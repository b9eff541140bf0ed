"""Files of what is known of items and users, for models that read it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cyclopts import Parameter

R = TypeVar("R")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CatalogueFiles:
    """The files.

    Parameters
    ----------
    items
        JSON lines of items as `PUT /v1/items` takes them, with `item_id`: what a model may read of
        them is declared in the setting `features`, and new ones are scored by their content.
    users
        JSON lines of users, with `user_id` and `attributes`.
    """

    items: Path | None = None
    users: Path | None = None


def with_catalogue(data: Any, files: CatalogueFiles, features: Any) -> Any:
    """A DataSet with the records of the files and the declared features. Raises CommandError."""
    from rheos.catalogue import decode_item, decode_user

    items = _records(files.items, decode_item)
    users = _records(files.users, decode_user)
    return replace(
        data,
        items_known={item.item_id: item for item in items if not item.deleted},
        users_known={user.user_id: user for user in users},
        features=features,
    )


def _records(path: Path | None, decode: Callable[[bytes], R]) -> list[R]:
    from rheos.catalogue import InvalidRecordError
    from rheos.cli.error import WRONG_USAGE, CommandError
    from rheos.row_file import RowFile

    if path is None:
        return []
    file = RowFile(path)
    if not file.is_json:
        raise CommandError(f"{path}: JSON lines are needed, like items.jsonl", WRONG_USAGE)
    found = []
    for row in file.rows():
        try:
            found.append(decode(row.original))
        except InvalidRecordError as error:
            raise CommandError(f"{path}, record {row.number + 1}: {error}", WRONG_USAGE) from None
    return found

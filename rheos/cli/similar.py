"""``rheos similar ITEM``: the items most like an item."""

from typing import Annotated

from cyclopts import Parameter


def command(
    item: str,
    *,
    k: Annotated[int, Parameter(alias="-k")] = 10,
    url: str = "",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Ask the API for the items most like an item.

    Example: `rheos similar 85123A -k 5`

    Parameters
    ----------
    item
        The item's id.
    k
        How many items.
    url
        The API's address; by default where the settings put the indexer.
    json
        Print the API's answer as JSON.
    """
    from rheos.cli import answer
    from rheos.client import Client
    from rheos.settings import load

    with Client(url or answer.api_url(load())) as client:
        found = client.similar(item, k)
    if json:
        answer.print_json(found)
        return
    generation = found.get("generation") or "none yet"
    answer.print_items(f"Like {item}: generation {generation}", found["items"])

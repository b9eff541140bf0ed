"""``rheos recommend USER``: what the API answers for a user."""

from typing import Annotated

from cyclopts import Parameter


def command(
    user: str,
    *,
    k: Annotated[int, Parameter(alias="-k")] = 10,
    category: str = "",
    exclude: list[str] | None = None,
    explain: Annotated[bool, Parameter(negative="")] = False,
    url: str = "",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Ask the API for a user's recommendations.

    Example: `rheos recommend 17850 -k 5`

    Parameters
    ----------
    user
        The user's id; one that nobody has seen yet gets the trend.
    k
        How many items.
    category
        Only items of this category.
    exclude
        Items to leave out; may be given several times.
    explain
        Say which items of the history gave each score, and their shares of what each source gave.
    url
        The API's address; by default where the settings put the indexer.
    json
        Print the API's answer as JSON.
    """
    from rheos.cli import answer
    from rheos.client import Client
    from rheos.settings import load

    with Client(url or answer.api_url(load())) as client:
        found = client.recommendations(
            user, k, category=category, exclude=exclude or [], explain=explain
        )
    if json:
        answer.print_json(found)
        return
    as_of = found.get("as_of")
    since = f", as of {as_of['partition']}@{as_of['offset']}" if as_of else ", not seen before"
    generation = found.get("generation") or "none yet"
    answer.print_items(f"For {user}: generation {generation}{since}", found["items"])

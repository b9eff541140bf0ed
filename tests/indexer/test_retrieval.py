"""One query against a live view and a generation, without Kafka or HTTP."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from indexer.item_numbers import ItemNumbers
from indexer.live_users import NOBODY
from indexer.live_view import LiveView
from indexer.ranking import HISTORY, NEW, NEXT, SOURCES, TREND, VECTOR
from indexer.retrieval import Choice, Retrieval, Wish
from indexer.serving import Serving
from rheos.catalogue import Item, encode_record
from rheos.content import Content
from rheos.item_weights import ItemWeights
from rheos.settings import Settings, from_tree
from rheos.state import Float32s, History, Int64s, encode_state
from tests.indexer import shop

ITEMS = [f"i{number:03d}" for number in range(400)]


class World:
    """400 items in the generation; those put are in item-state."""

    def __init__(
        self,
        settings: Settings | None = None,
        item_weights: ItemWeights | None = None,
        content: Content | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.view = LiveView(self.settings)
        self.vectors = shop.vectors(400, 6)
        self.generation = shop.generation(ITEMS, self.vectors, item_weights=item_weights)
        self.generation.content = content
        view = self.view
        self.serving = Serving(
            self.generation, view.numbers, view.next_lists, view.catalogue, "flat"
        )
        self.retrieval = Retrieval(self.settings, self.view)

    def item_state(self, item: str, *arguments: object, **named: object) -> None:
        state = shop.item_state(*arguments, **named)  # type: ignore[arg-type]
        self.view.take("rheos.item-state", item.encode(), encode_state(state), "")

    def item(self, item: Item) -> None:
        self.view.take("rheos.items", item.item_id.encode(), encode_record(item), "")

    def ask(
        self,
        history: History,
        *sources: str,
        k: int = 10,
        category: str | None = None,
        exclude: tuple[str, ...] = (),
    ) -> Choice:
        wish = Wish(k, frozenset(sources or SOURCES), category, exclude)
        vector = self.generation.encoder.encode([history])[0]
        return self.retrieval.recommend(wish, history, self.serving, vector)

    def exact(self, history: History, left_out: set[str]) -> list[str]:
        scores = self.vectors @ self.generation.encoder.encode([history])[0]
        order = [ITEMS[row] for row in np.argsort(-scores)]
        return [item for item in order if item not in left_out]


def history(*items: str) -> History:
    return shop.user_state(items).history()


def ids(choice: Choice) -> list[str]:
    return [item.item_id for item in choice.items]


def test_rules_that_leave_out_almost_everything_are_searched_past() -> None:
    world = World()
    asked = history("i001", "i002")
    kept = set(world.exact(asked, {"i001", "i002"})[-15:])
    for item in ITEMS:
        if item not in kept:
            world.item(Item(item_id=item, available=False))
    found = world.ask(asked, VECTOR, k=20)
    assert set(ids(found)) == kept


def test_a_category_is_searched_exactly() -> None:
    world = World()
    asked = history("i001", "i002")
    order = world.exact(asked, {"i001", "i002"})
    rare = order[-5:]
    for item in rare:
        world.item(Item(item_id=item, category="rare"))
    assert ids(world.ask(asked, VECTOR, category="rare")) == rare
    assert ids(world.ask(asked, category="none")) == []


def test_scores_of_the_vector_alone_are_inner_products() -> None:
    world = World()
    asked = history("i010", "i020")
    found = world.ask(asked, VECTOR, k=7)
    vector = world.generation.encoder.encode([asked])[0]
    expected = world.exact(asked, {"i010", "i020"})[:7]
    assert ids(found) == expected
    rows = [ITEMS.index(item) for item in expected]
    assert [item.score for item in found.items] == pytest.approx(
        (world.vectors[rows] @ vector).tolist(), rel=1e-4
    )


def test_scores_of_counts_alone_are_shares_of_the_best() -> None:
    world = World()
    for number, item in enumerate(ITEMS[:10]):
        world.item_state(item, 2**number, {"i300": (1.0, 1.0), "i301": (2.0, 4.0)})
    trend = world.ask(NOBODY, TREND, k=3)
    assert [(item.item_id, item.score) for item in trend.items] == [
        ("i009", 1.0),
        ("i008", 0.5),
        ("i007", 0.25),
    ]
    following = world.ask(history("i003"), NEXT)
    assert ids(following) == ["i301", "i300"]
    assert following.items[0].score == 1.0


def test_a_users_own_items_come_again_where_seen_ones_may() -> None:
    world = World(from_tree({"retrieval": {"leave_out_seen": False, "own_weight": 3.0}}))
    asked = history("i001", "i002", "i003", "i003")
    assert ids(world.ask(asked, HISTORY)) == ["i003", "i002", "i001"]
    found = world.ask(asked)
    assert [item.source for item in found.items if item.item_id == "i003"] == [HISTORY]
    assert ids(found)[0] == "i003"
    assert "i003" not in ids(world.ask(asked, exclude=("i003",)))
    wish = Wish(1, frozenset(SOURCES), explain=True)
    [best] = world.retrieval.recommend(wish, asked, world.serving, None).items
    reasons = [(why.item_id, why.share) for why in best.because if why.source == HISTORY]
    assert (best.item_id, reasons) == ("i003", [("i003", 1.0)])


def test_where_seen_items_are_left_out_own_items_change_nothing() -> None:
    asked, none = history("i001", "i002"), {"retrieval": {"own_weight": 0.0}}
    with_own, without = World().ask(asked), World(from_tree(none)).ask(asked)
    assert with_own == without
    assert not World().ask(asked, HISTORY).items


def test_seen_items_stay_when_the_setting_says_so_and_excluded_ones_never() -> None:
    world = World(from_tree({"retrieval": {"leave_out_seen": False}}))
    asked = history("i001")
    assert "i001" in ids(world.ask(asked, VECTOR, k=400))
    assert "i001" not in ids(world.ask(asked, VECTOR, k=400, exclude=("i001", "unheard of")))


def test_an_item_that_only_a_next_list_names_is_found_and_if_seen_left_out() -> None:
    world = World()
    world.item_state("i000", 3, {"only-here": (5.0, 5.0), "seen": (5.0, 5.0)})
    found = ids(world.ask(history("seen", "i000"), NEXT))
    assert found == ["only-here"]


def test_a_new_item_joins_the_fused_list_as_new() -> None:
    world = World()
    world.item_state("fresh", 1, {"i005": (1.0, 1.0)}, trend=0.0)
    world.serving.delta.refresh(range(len(world.view.numbers)))
    asked = history("i005")
    found = {item.item_id: item.source for item in world.ask(asked, VECTOR, NEW, k=400).items}
    assert found["fresh"] == NEW
    assert set(found.values()) == {VECTOR, NEW}
    assert "fresh" not in ids(world.ask(asked, VECTOR, k=400))


class _ByRow:
    """A ranker whose opinion is known: the higher row first."""

    def score(self, user_vector: Float32s, rows: Int64s) -> Float32s:
        return rows.astype(np.float32)


def test_a_ranker_orders_what_the_vector_found_and_new_items_keep_their_rank() -> None:
    world = World(from_tree({"retrieval": {"vector_depth": 30}}))
    world.generation.ranker = _ByRow()
    world.item_state("fresh", 1, {"i005": (1.0, 1.0)}, trend=0.0)
    world.serving.delta.refresh(range(len(world.view.numbers)))
    asked = history("i005", "i006")
    retrieved = world.exact(asked, {"i005", "i006"})[:30]
    found = world.ask(asked, VECTOR, k=12)
    assert ids(found) == sorted(retrieved, reverse=True)[:12]
    assert [item.score for item in found.items] == [float(int(i[1:])) for i in ids(found)]
    assert ids(world.ask(asked, NEW)) == ["fresh"]
    # Its vector is i005's own, which is left out: of 398 as many stand above it by either order.
    vector = world.generation.encoder.encode([asked])[0]
    above = (np.delete(world.vectors, [5, 6], 0) @ vector > world.vectors[5] @ vector).sum()
    assert abs(ids(world.ask(asked, VECTOR, NEW, k=400)).index("fresh") - above) <= 1


def test_a_history_that_the_generation_does_not_know_falls_back_to_counts() -> None:
    world = World()
    world.item_state("x", 5, {"y": (1.0, 1.0)})
    world.item_state("z", 9)
    found = world.ask(history("x", "lost"))
    assert ids(found) == ["y", "z"]
    assert found.ignored == ["lost"]


def test_a_weight_of_zero_takes_a_layer_out() -> None:
    tree = {"near_weight": 1.0, "far_weight": 0.0, "vector_weight": 0.0, "trend_weight": 0.0}
    world = World(from_tree({"retrieval": tree}))
    world.item_state("i000", 3, {"i100": (5.0, 0.0), "i200": (0.0, 50.0)})
    assert ids(world.ask(history("i000"), NEXT)) == ["i100"]


def test_items_like_an_item_are_ordered_by_cosine() -> None:
    world = World()
    wish = Wish(10, frozenset({VECTOR}))
    found = world.retrieval.similar(wish, "i000", world.serving)
    lengths = np.linalg.norm(world.vectors, axis=1)
    cosines = world.vectors @ world.vectors[0] / (lengths * lengths[0])
    told = [cosines[ITEMS.index(item.item_id)] for item in found]
    assert [item.score for item in found] == pytest.approx(told, rel=1e-4)
    assert told == sorted(told, reverse=True)
    assert "i000" not in [item.item_id for item in found]


def test_the_scores_of_items_like_an_item_are_the_same_however_many_are_asked_for() -> None:
    world = World()
    rng = np.random.default_rng(3)
    for item in ITEMS[:100]:
        near = {str(o): (1.0, float(rng.uniform(1, 9))) for o in rng.choice(ITEMS, 30, False)}
        world.item_state(item, int(rng.integers(1, 99)), near)
    few, many = (
        world.retrieval.similar(Wish(k, frozenset(SOURCES)), "i000", world.serving) for k in (3, 60)
    )
    assert many[:3] == few


def test_the_same_question_has_the_same_answer() -> None:
    world = World()
    rng = np.random.default_rng(2)
    for item in ITEMS[:200]:
        others = rng.choice(ITEMS, 20, replace=False)
        world.item_state(item, int(rng.integers(1, 9)), {str(o): (1.0, 1.0) for o in others})
    asked = history(*ITEMS[:30])
    first = world.ask(asked, k=50)
    assert all(world.ask(asked, k=50) == first for _ in range(5))
    assert len(first.items) == 50
    assert len(set(ids(first))) == 50


def test_numbers_are_given_once_under_threads() -> None:
    numbers = ItemNumbers()
    found: list[list[int]] = []

    def add(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(2000)
        mine = {int(item): numbers.add(f"i{item}") for item in order}
        found.append([mine[item] for item in range(2000)])

    threads = [threading.Thread(target=add, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one == found[0] for one in found)
    assert sorted(found[0]) == list(range(2000)) == list(range(len(numbers)))
    assert all(numbers.id_of(found[0][item]) == f"i{item}" for item in range(2000))


class Drawn:
    """An item's vector is drawn from its price."""

    def encode(self, items: Sequence[Item]) -> Float32s:
        drawn = [shop.vectors(1, int(item.price or 0))[0] for item in items]
        return np.array(drawn, np.float32).reshape(-1, shop.DIMENSIONS)


@pytest.mark.parametrize("every", [2, 400])
def test_new_items_of_a_category_are_found_among_many_of_others(every: int) -> None:
    world = World(content=Drawn())
    items = [
        Item(item_id=f"new{n}", price=float(n), category="common" if n % every else "rare")
        for n in range(2_000)
    ]
    for item in items:
        world.item(item)
    world.serving.delta.refresh(range(len(world.view.numbers)))
    asked = history("i000")
    user = world.generation.encoder.encode([asked])[0]
    rare = items[::every]
    order = np.argsort(-(Drawn().encode(rare) @ user))[:5]
    found = world.ask(asked, NEW, k=5, category="rare")
    assert ids(found) == [rare[place].item_id for place in order]


def test_new_items_that_are_not_on_sale_hide_no_others() -> None:
    world = World(content=Drawn())
    for n in range(600):
        world.item(Item(item_id=f"new{n}", price=float(n), available=n % 10 == 0))
    world.serving.delta.refresh(range(len(world.view.numbers)))
    assert len(world.ask(history("i000"), NEW, k=50).items) == 50

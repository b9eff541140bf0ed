import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.models.interaction_graph import InteractionGraph
from trainer.models.triples import Draws, Triples, bpr

CPU = torch.device("cpu")
USERS, ITEMS = 5, 12


def graph() -> InteractionGraph:
    """User 0 has items 0 to 5, user 1 items 6 and 7, user 3 all of them; 2 and 4 have none."""
    users = [0] * 6 + [1] * 2 + [3] * ITEMS
    items = [*range(6), 6, 7, *range(ITEMS)]
    return InteractionGraph(np.array(users, np.int32), np.array(items, np.int32), USERS, ITEMS)


def vectors() -> Tensor:
    return torch.randn(USERS + ITEMS, 3, generator=torch.Generator().manual_seed(1))


def draws(seed: int = 0) -> Draws:
    return Draws(graph(), CPU, torch.Generator().manual_seed(seed))


def owned() -> set[tuple[int, int]]:
    return set(zip(graph().users.tolist(), (graph().items + USERS).tolist(), strict=True))


def test_items_are_the_user_s_and_others_that_count_are_not() -> None:
    for negatives in (1, 4):
        drawn = draws().draw(2000, negatives, vectors())
        users = drawn.users.tolist()
        assert set(zip(users, drawn.items.tolist(), strict=True)) == owned()
        for user, other, counts in zip(
            users, drawn.others.tolist(), drawn.counts[:, 0].tolist(), strict=True
        ):
            assert counts == ((user, other) not in owned())


def test_a_user_who_has_everything_counts_for_nothing() -> None:
    drawn = draws().draw(300, 3, vectors())
    assert not drawn.counts[drawn.users == 3].any()


def test_users_are_drawn_alike_often_whatever_they_have() -> None:
    drawn = draws().draw(30_000, 1, vectors())
    shares = torch.bincount(drawn.users, minlength=USERS) / 30_000
    torch.testing.assert_close(shares, torch.tensor([1, 1, 0, 1, 0]) / 3, atol=0.02, rtol=0)


def test_the_chances_are_how_often_a_node_is_drawn() -> None:
    made = draws()
    drawn = made.draw(60_000, 1, vectors())
    nodes = torch.cat(drawn[:3])
    shares = torch.bincount(nodes, minlength=USERS + ITEMS)[:, None] / 60_000
    torch.testing.assert_close(shares, made.chances, atol=0.01, rtol=0)


def test_the_hardest_of_many_is_the_best_item_that_the_user_lacks() -> None:
    drawn = draws().draw(200, 200, vectors())
    scores = vectors() @ vectors()[0]
    best = max((item for item in range(6, ITEMS)), key=lambda item: scores[USERS + item])
    assert set(drawn.others[drawn.users == 0].tolist()) == {USERS + best}


def test_the_written_out_gradient_of_bpr_is_autograd_s() -> None:
    drawn = draws().draw(500, 2, vectors())
    gradient = torch.ones(USERS + ITEMS, 3)
    loss = bpr(vectors(), drawn, gradient)
    plain = vectors().requires_grad_()
    user, item, other = plain[drawn.users], plain[drawn.items], plain[drawn.others]
    x = (user * (item - other)).sum(1, keepdim=True)
    expected = -(functional.logsigmoid(x) * drawn.counts).sum()
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    assert plain.grad is not None
    torch.testing.assert_close(gradient, 1 + plain.grad, atol=1e-4, rtol=1e-4)


def test_what_does_not_count_moves_nothing() -> None:
    one = torch.tensor([0])
    triple = Triples(one, one + USERS, one + USERS + 1, torch.zeros(1, 1))
    gradient = torch.zeros(USERS + ITEMS, 3)
    assert bpr(vectors(), triple, gradient) == 0
    assert not gradient.any()

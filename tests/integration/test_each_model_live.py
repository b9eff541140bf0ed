"""Every registered model serves in the running system, one after the other by hot swap.

One broker, one stream worker and one indexer for all of them. A model joins by its line in
``trainer.models.MODELS`` and its case in the contract suite.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from rheos import topics
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from rheos.snapshot_store import LocalStore
from tests.contract.test_models import CASES, ITEMS, checkerboard
from tests.integration.indexer_rig import running, until
from tests.stream.worker_process import WorkerProcess, worker_settings
from trainer.fitting import fit, make
from trainer.models import MODELS, model_of
from trainer.models.model import Run
from trainer.publish import Decisions, publish

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARAMETERS = {case.name: case.parameters for case in CASES}
SEED = 3  # the contract suite's, under which these parameters are known to learn
K = 6
PATIENCE_S = 60


class System(NamedTuple):
    """What runs, and the API that all is asked of."""

    settings: Settings
    client: httpx.Client

    def serve(self, model: str) -> str:
        """Fits a small generation and publishes it, as the trainer does; its name."""
        data, chosen = checkerboard(missing=2), model_of(model, PARAMETERS[model])
        store = LocalStore(self.settings.store_dir)
        decisions = Decisions(self.settings, store)
        fitted = fit(chosen, data, Run(seed=SEED))
        made = make(decisions.next_number(), chosen, fitted, data, {})
        return publish(self.settings, store, made, "a test", decisions.serving).generation

    def click(self, user: str, *items: str) -> int:
        """The offset of the last of these clicks."""
        events = [{"user_id": user, "item_id": item, "type": "click"} for item in items]
        answer = self.client.post("/v1/events", json=events)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["events"][-1]["offset"])

    def asked(
        self, user: str, generation: str, offset: int, sources: str = "", k: int = K
    ) -> dict[str, Any]:
        """A user's answer, once it is of the generation and reflects the click at ``offset``."""
        found: dict[str, Any] = {}
        query = {"k": k} | ({"sources": sources} if sources else {})

        def is_there() -> bool:
            answer = self.client.get(f"/v1/users/{user}/recommendations", params=query)
            assert answer.status_code == 200, answer.text
            found.update(answer.json())
            seen = found["as_of"]
            return bool(
                found["generation"] == generation and seen is not None and seen["offset"] >= offset
            )

        until(is_there, PATIENCE_S)
        return found


@pytest.fixture(scope="module")
def system(run_broker: KafkaProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    run_broker.start()
    folder: Path = tmp_path_factory.mktemp("each-model")
    settings = worker_settings(
        run_broker.bootstrap, f"t{folder.name}", folder / "data", indexer={"port": 0}
    )
    assert topics.ensure(settings) == []
    worker = WorkerProcess(settings, folder / "stream.log")
    try:
        with running(settings) as indexer:
            worker.wait_ready()
            yield System(settings, indexer.ready().client)
    finally:
        worker.kill()


def parities(answer: dict[str, Any]) -> list[int]:
    return [int(item["item_id"][1:]) % 2 for item in answer["items"]]


def lead_of_white(answer: dict[str, Any]) -> float:
    """By how much white items outscore black ones in the mean."""
    by_parity: list[list[float]] = [[], []]
    for item_id, score in scores(answer).items():
        by_parity[int(item_id[1:]) % 2].append(score)
    white, black = (sum(one) / len(one) for one in by_parity)
    return white - black


def scores(answer: dict[str, Any]) -> dict[str, float]:
    return {item["item_id"]: item["score"] for item in answer["items"]}


@pytest.mark.parametrize("model", MODELS)
def test_the_running_system_serves_each_model_and_each_click_counts(
    system: System, model: str
) -> None:
    name = system.serve(model)
    white, black = f"{model}-white", f"{model}-black"
    first = {
        white: system.click(white, "i00", "i02", "i04"),
        black: system.click(black, "i01", "i03", "i05"),
    }
    own = "vector,item_weights"
    for user, parity in ((white, 0), (black, 1)):
        # Of strangers to the fit, by the model alone: their own colour stands on top.
        by_model = system.asked(user, name, first[user], own)
        assert parities(by_model).count(parity) >= K - 1, by_model
        # By all sources, as a visitor is asked for: what others clicked has its say there too.
        assert len(system.asked(user, name, first[user])["items"]) == K

    before = system.asked(white, name, first[white], "vector", k=ITEMS)
    favourite = before["items"][0]["item_id"]
    offset = system.click(white, favourite, "i01", "i03", "i07")
    after = system.asked(white, name, offset, "vector", k=ITEMS)
    assert favourite not in scores(after)  # what she has is no recommendation any more
    assert lead_of_white(after) < lead_of_white(before)  # what she looked at last draws her there


def test_each_model_has_a_case_here() -> None:
    missing = [name for name in MODELS if name not in PARAMETERS]
    assert missing == [], "give these a case in tests/contract/test_models.py"

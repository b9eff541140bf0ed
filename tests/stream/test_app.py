"""The app before Faust runs: waiting for a Kafka that is not there yet."""

from pathlib import Path

import pytest
from kafka.errors import KafkaConnectionError

from rheos.settings import Settings, from_tree
from stream import app as app_module
from stream.app import Unfit, create_app


async def test_no_client_is_made_before_a_broker_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each client that finds no broker leaves a thread and sockets behind."""
    listens = iter([False, True, False, True])
    answers = iter([KafkaConnectionError("gone again"), ["topic x: unfit"]])
    calls: list[str] = []

    def is_reachable(bootstrap: str) -> bool:
        calls.append("asked")
        return next(listens)

    def ensure(settings: Settings) -> list[str]:
        calls.append("client")
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(app_module, "is_reachable", is_reachable)
    monkeypatch.setattr(app_module.topics, "ensure", ensure)
    monkeypatch.setattr(app_module, "_BROKER_EVERY_S", 0.001)
    app = create_app(from_tree({"data_dir": str(tmp_path)}))
    with pytest.raises(Unfit, match="topic x: unfit"):
        await app._ensure_topics()
    assert calls == ["asked", "asked", "client", "asked", "asked", "client"]
    assert "waiting for Kafka at 127.0.0.1:9092: nothing listens there" in caplog.text
    assert "gone again" in caplog.text

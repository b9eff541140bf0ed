"""What partitions ask the brokers, several at a time of one client."""

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from stream.cluster import Cluster, Range, TopicIdentity


class Admin:
    """Answers after another thread has replaced it, if it still lives then."""

    def __init__(self, replace: Callable[[], None]) -> None:
        self._replace = replace

    def describe_topics(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"t": self._later(SimpleNamespace(topic_id="id", partitions=[0, 1]))}

    def list_offsets(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"t": self._later(SimpleNamespace(offset=7))}

    def _later(self, answer: object) -> SimpleNamespace:
        replace, lives = self._replace, weakref.ref(self)

        def result() -> object:
            replace()
            gc.collect()
            assert lives() is not None, "nobody would ever answer"
            return answer

        return SimpleNamespace(result=result)


def test_a_client_that_another_thread_replaces_lives_until_it_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def replace() -> None:
        cluster._admin = Admin(replace)

    monkeypatch.setattr(Cluster, "_connect", lambda _: Admin(replace))
    cluster = Cluster("nobody:1")
    assert cluster.identity("t") == TopicIdentity("id", 2)
    assert cluster.range("t", 0) == Range(7, 7)

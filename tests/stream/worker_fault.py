"""Faults inside a worker: ``AGENT ACTION WHEN STEP`` with the steps of ``FaultyPartition``."""

import os
import signal
import threading

from confluent_kafka import KafkaError, KafkaException

from stream.partition import Partition
from tests.stream.partition_process import FaultyPartition


def faulty(fault: str) -> type[Partition]:
    """A Partition that fails once: the WHENth time that any partition of the agent is at STEP.

    ACTION is ``kill`` (the process), ``fail`` (as a transaction fails), or ``fence`` (as if another
    owner had come).
    """
    agent, action, when, step = fault.split(" ", 3)
    lock = threading.Lock()
    left = int(when)

    class Faulty(FaultyPartition):
        def fault(self, at: str) -> None:
            nonlocal left
            if at != step or self._agent.name != agent:
                return
            with lock:
                left -= 1
                if left != 0:
                    return
            if action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            code = KafkaError._FENCED if action == "fence" else KafkaError._INCONSISTENT
            raise KafkaException(KafkaError(code, f"fault at {at}"))

    return Faulty

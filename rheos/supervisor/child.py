"""A process that a supervisor looks after, and what is known of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class ChildState(StrEnum):
    """Where a child stands."""

    WAITING = "waiting"  # for those that start before it
    STARTING = "starting"  # it runs and does not answer yet
    RUNNING = "running"  # one-shot only
    READY = "ready"
    BACKING_OFF = "backing off"  # it ended and will be started again
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"  # one-shot only: it ended with status 0


@dataclass(frozen=True)
class Child:
    """What to run and how to treat it.

    `argv` runs in a session of its own; what it starts in yet another one is its own affair.

    `ready` is a callable that says whether the child serves, or a URL that answers 2xx once it
    does. It is asked several times a second in a thread, may block for about two seconds, and an
    OSError from it means "not yet"; anything else that it raises stops the supervisor, which
    raises it. Without it a child is ready at once; a one-shot child, when it has ended with
    status 0. A one-shot child that ended with another status starts again like any other.

    Children with a lower `start_order` are ready before those with a higher one start; equal ones
    start together. Children with a lower `stop_order` are gone before higher ones are told to
    stop. `grace_s` lies between SIGTERM and SIGKILL; both reach the child's whole process group.
    A child that is not ready within `ready_timeout_s` is killed and started again.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)  # beside the supervisor's own
    ready: Callable[[], bool] | str | None = None
    ready_timeout_s: float = 120.0
    start_order: int = 0
    stop_order: int = 0
    grace_s: float = 3.0
    one_shot: bool = False


@dataclass(frozen=True)
class ChildStatus:
    """A child at one moment, for a display."""

    name: str
    state: ChildState
    in_state_s: float
    pid: int | None
    restarts: int
    exit_status: int | None  # of its latest end; negative: the signal that ended it

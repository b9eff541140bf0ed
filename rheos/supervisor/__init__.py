"""Child processes: started in order, kept alive, stopped in order."""

from rheos.supervisor.backoff import Backoff
from rheos.supervisor.child import Child, ChildState, ChildStatus
from rheos.supervisor.folder_lock import FolderBusyError, folder_lock
from rheos.supervisor.supervisor import Supervisor

__all__ = [
    "Backoff",
    "Child",
    "ChildState",
    "ChildStatus",
    "FolderBusyError",
    "Supervisor",
    "folder_lock",
]

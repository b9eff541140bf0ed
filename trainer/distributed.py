"""Several processes fit one model together: each takes its share of every batch (data parallel).

Every process holds the whole model and the whole data set and works on its own share of each batch:
a part of what all draw from the same seed, or what it draws for itself. Gradients are added up
before each step, so all processes take the same steps. Alone (without ``torchrun``) a share is
everything and nothing is added up.
"""

import logging
import os
import sys
from collections.abc import Iterable
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many processes fit together; 1 alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def own_share() -> slice:
    """Which of a batch's rows are this process's: every n-th of n processes."""
    return slice(rank(), None, processes())


def add_up(tensors: Iterable[Tensor]) -> None:
    """Each tensor becomes its sum over all processes, in place; all call with the same shapes."""
    if processes() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def add_up_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """The same for gradients. A loss that is a sum over the share divided by the whole batch's
    length then has the gradient of the whole batch's mean.
    """
    if processes() > 1:
        for parameter in parameters:
            if parameter.grad is None:  # nothing in this share touched it
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)


@torch.no_grad()
def as_the_first(tensors: Iterable[torch.Tensor]) -> None:
    """Each tensor becomes the first process's, in place: other machines may round otherwise."""
    if processes() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def leave(status: int) -> NoReturn:
    """Ends this process, once all of them have come here; what is to be kept is written by then.

    At once, without the interpreter's own end: a thread of gloo may still hold the tensors of its
    last work, and one that lets go of them while the interpreter ends aborts the process (PyTorch,
    pull request 179291). That would be a failed run in torchrun's eyes.
    """
    dist.barrier()  # one that goes while another still talks takes it down
    dist.destroy_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

"""Run something in a child process that is killed in the middle."""

import os
import signal
from collections.abc import Callable
from typing import Any


def killed_at(owner: Any, name: str, call: int, action: Callable[[], None]) -> bool:
    """Run ``action`` in a child that dies by SIGKILL as ``owner.name`` is called the n-th time.

    Returns whether it came that far. The child is a fork: nothing of it reaches this process but
    what is on disk.
    """
    child = os.fork()
    if child == 0:
        real, left = getattr(owner, name), [call]

        def die(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(owner, name, die)
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

"""Do the jobs of a comparison, in this process or in several."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from pyg_peft.cli.comparing.experiment import Experiment, Job, Results
from pyg_peft.cli.comparing.work import do_job

Told = Callable[[Job], None]


def do_all(results: Results, jobs: int, tell: Told) -> None:
    """Do everything that is missing.

    Args:
        results: Results so far; jobs write further ones.
        jobs: Number of processes, one thread each. With 1, this process does the work.
        tell: Called after each job.
    """
    if jobs > 1:
        _do_in_processes(results, jobs, tell)
        return
    with quiet():
        while wanted := results.wanted():
            do_job(results.experiment, results.folder, wanted[0])
            tell(wanted[0])


def _do_in_processes(results: Results, jobs: int, tell: Told) -> None:
    context = multiprocessing.get_context("spawn")  # a fork would share locks of torch's threads
    workers: dict[Any, Any] = {}
    running: dict[Any, Job] = {}
    try:
        while True:
            busy = set(running.values())
            wanted = [job for job in results.wanted() if job not in busy]
            idle = [pipe for pipe in workers if pipe not in running]
            for job in wanted[: jobs - len(running)]:
                if not idle:
                    idle = [_start(context, workers, results)]
                pipe = idle.pop()
                pipe.send(job)
                running[pipe] = job
            if not running:
                return
            for pipe in multiprocessing.connection.wait(list(running)):
                job = running.pop(pipe)
                _check(pipe, job)
                tell(job)
    finally:
        for process in workers.values():
            process.kill()  # Lightning would end its run slowly; the files are whole or absent
        for process in workers.values():
            process.join()


def _start(context: Any, workers: dict[Any, Any], results: Results) -> Any:
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, results.experiment, results.folder), daemon=True
    )
    process.start()
    theirs.close()
    workers[ours] = process
    return ours


def _check(pipe: Any, job: Job) -> None:
    """Receive the end of a job, and raise what it raised."""
    try:
        error = pipe.recv()
    except EOFError as gone:
        raise RuntimeError(
            f"Expected the process of '{job.cell}' to end its work (it died; memory may be short): "
            "fewer '--jobs' need less"
        ) from gone
    if error is not None:
        error.add_note(f"in the run '{job.cell}'")
        raise error


def _serve(pipe: Any, experiment: Experiment, folder: Path) -> None:
    """Do jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if experiment.modules and "" not in sys.path:
        sys.path.insert(0, "")
    for name in experiment.modules:
        import_module(name)
    with quiet():
        while True:
            try:
                job = pipe.recv()
            except EOFError:
                return
            try:
                do_job(experiment, folder, job)
            except Exception as error:
                pipe.send(_sendable(error))
            else:
                pipe.send(None)


def _sendable(error: Exception) -> Exception:
    """Return the error, or a plain one with its text if it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the class of the error does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    """End this process with its parent, even if that was killed, so that nobody writes on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def quiet() -> Any:
    """Silence what Lightning says of each run: devices, and the reasons of its stops."""
    names = ("lightning.pytorch", "lightning.fabric")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


__all__ = ["do_all", "quiet"]

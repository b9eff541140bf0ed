"""The supervisor: order, readiness, restarts, logs, and no process left behind."""

import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rheos.supervisor import (
    Backoff,
    Child,
    ChildState,
    FolderBusyError,
    Supervisor,
    folder_lock,
)
from rheos.supervisor.merged_log import FILE_LIMIT_BYTES, MergedLog
from tests.broker import free_ports, new_broker

QUICK = Backoff(first_s=0.1, longest_s=0.4, healthy_after_s=60)
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def eventually(condition: Callable[[], object], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # a zombie has ended; that nobody reaped it is its new parent's affair


def run_until(
    supervisor: Supervisor, condition: Callable[[], object], stop: signal.Signals = signal.SIGTERM
) -> float:
    """Run the supervisor here until the condition holds; return how long its stop took."""
    failures: list[BaseException] = []
    asked_at: list[float] = []
    running = threading.Event()
    running.set()

    def watch() -> None:
        try:
            eventually(condition)
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            failures.append(error)
        asked_at.append(time.monotonic())
        if running.is_set():  # else the signal would end the test run
            os.kill(os.getpid(), stop)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        supervisor.run()
    finally:
        running.clear()
    thread.join()
    if failures:
        raise failures[0]
    return time.monotonic() - asked_at[0]


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


def test_a_child_starts_when_those_before_it_are_ready(tmp_path: Path, output: io.StringIO) -> None:
    port = free_ports(1)[0]
    server = """
        import http.server, sys, time
        class Answer(http.server.BaseHTTPRequestHandler):
            opened = time.monotonic()
            def do_GET(self):
                self.send_response(200 if time.monotonic() - self.opened > 0.5 else 503)
                self.end_headers()
            def log_message(self, *_): pass
        http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
        """
    supervisor = Supervisor(
        [
            # Given last and started first: the order is the number's, not the list's.
            Child("worker", python("print('worker is here'); import time; time.sleep(600)")),
            Child(
                "server", python(server, port), ready=f"http://127.0.0.1:{port}/", start_order=-1
            ),
        ],
        tmp_path,
        out=output,
        on_ready=lambda: supervisor.say("all of them"),
    )
    run_until(supervisor, lambda: "worker is here" in output.getvalue())
    text = output.getvalue()
    assert text.index("server is ready") < text.index("worker is here")
    assert "rheos  | all of them" in text
    assert [status.state for status in supervisor.status()] == [ChildState.STOPPED] * 2


def test_a_killed_child_starts_again_and_is_asked_again_whether_it_is_ready(
    tmp_path: Path, output: io.StringIO
) -> None:
    supervisor = Supervisor(
        [Child("worker", SLEEP, ready=lambda: True)], tmp_path, out=output, backoff=QUICK
    )
    killed: set[int] = set()

    def kill_it_three_times() -> bool:
        status = supervisor.status()[0]
        if status.state is ChildState.READY and status.pid and status.pid not in killed:
            if len(killed) == 3:
                return True
            killed.add(status.pid)
            os.kill(status.pid, signal.SIGKILL)
        return False

    run_until(supervisor, kill_it_three_times)
    text = output.getvalue()
    assert supervisor.status()[0].restarts == 3
    assert text.count("worker is ready") == 4
    for pause in ("0.1", "0.2", "0.4"):
        assert f"worker was ended by SIGKILL; starts again in {pause} s" in text


def test_the_pause_doubles_up_to_a_limit() -> None:
    backoff = Backoff(first_s=0.5, longest_s=30)
    assert [backoff.pause_s(n) for n in (1, 2, 3, 7, 8, 5000)] == [0.5, 1, 2, 30, 30, 30]


def test_a_child_that_was_well_for_long_begins_with_the_first_pause(
    tmp_path: Path, output: io.StringIO
) -> None:
    backoff = Backoff(first_s=0.1, longest_s=10, healthy_after_s=0.2)
    supervisor = Supervisor(
        [Child("worker", python("import time; time.sleep(0.7); raise SystemExit(4)"))],
        tmp_path,
        out=output,
        backoff=backoff,
    )
    run_until(supervisor, lambda: supervisor.status()[0].restarts == 3)
    assert output.getvalue().count("worker ended with status 4; starts again in 0.1 s") == 3


def test_a_child_that_does_not_get_ready_in_time_is_killed_and_starts_again(
    tmp_path: Path, output: io.StringIO
) -> None:
    def never() -> bool:
        raise ConnectionRefusedError

    supervisor = Supervisor(
        [Child("worker", SLEEP, ready=never, ready_timeout_s=0.3)],
        tmp_path,
        out=output,
        backoff=QUICK,
    )
    run_until(supervisor, lambda: supervisor.status()[0].restarts == 2)
    assert "worker is not ready after 0.3 s: killed" in output.getvalue()


def test_a_one_shot_runs_until_it_succeeds_and_then_no_more(
    tmp_path: Path, output: io.StringIO
) -> None:
    code = """
        import pathlib, sys
        tries = pathlib.Path(sys.argv[1])
        tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
        print("try", len(tries.read_text()))
        sys.exit(0 if len(tries.read_text()) == 3 else 7)
        """
    supervisor = Supervisor(
        [
            Child("topics", python(code, tmp_path / "tries"), one_shot=True),
            Child("after", python("print('afterwards')"), one_shot=True, start_order=1),
        ],
        tmp_path / "log",
        out=output,
        backoff=QUICK,
    )
    supervisor.run()  # ends by itself: nothing is left to look after
    text = output.getvalue()
    assert text.count("topics ended with status 7") == 2
    assert text.index("topics has finished") < text.index("afterwards")
    assert (tmp_path / "log" / "topics.log").read_text() == "try 1\ntry 2\ntry 3\n"
    assert [status.state for status in supervisor.status()] == [ChildState.FINISHED] * 2


def test_a_program_that_is_not_there_is_named(tmp_path: Path, output: io.StringIO) -> None:
    supervisor = Supervisor(
        [Child("worker", ["/no/such/program"])], tmp_path, out=output, backoff=QUICK
    )
    run_until(supervisor, lambda: supervisor.status()[0].restarts == 1)
    assert "worker | cannot start /no/such/program: No such file" in output.getvalue()


def test_an_unexpected_error_of_a_check_ends_everything_and_is_raised(
    tmp_path: Path, output: io.StringIO
) -> None:
    pids: list[int] = []

    def broken() -> bool:
        pids.extend(status.pid for status in supervisor.status() if status.pid)
        raise ZeroDivisionError

    supervisor = Supervisor(
        [Child("good", SLEEP), Child("bad", SLEEP, ready=broken, start_order=1)],
        tmp_path,
        out=output,
    )
    with pytest.raises(ExceptionGroup) as error:
        supervisor.run()
    assert error.group_contains(ZeroDivisionError)
    assert len(pids) == 2
    assert not any(map(is_alive, pids))


NOISY = """
    import signal, sys, time
    def stop(*_):
        print(sys.argv[1], "stops"); time.sleep(0.2); print(sys.argv[1], "is gone"); sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    print(sys.argv[1], "runs")
    while True: time.sleep(1)
    """


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_children_stop_in_order_each_after_the_one_before_is_gone(
    tmp_path: Path, output: io.StringIO, stop: signal.Signals
) -> None:
    names = ["kafka", "stream", "replay"]
    supervisor = Supervisor(
        [Child(name, python(NOISY, name), stop_order=-i) for i, name in enumerate(names)],
        tmp_path,
        out=output,
    )
    run_until(supervisor, lambda: output.getvalue().count("runs") == 3, stop)
    text = output.getvalue()
    events = [text.index(f"{name} {what}") for name in names[::-1] for what in ("stops", "is gone")]
    assert events == sorted(events)
    assert all(status.exit_status == 0 for status in supervisor.status())


STUBBORN = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("pids", os.getpid(), child.pid)
    time.sleep(600)
    """


def pids_in(text: str) -> list[int]:
    lines = [line.partition("pids ")[2] for line in text.splitlines()]
    return [int(word) for line in lines for word in line.split()]


def test_what_ignores_sigterm_is_killed_with_its_own_children(
    tmp_path: Path, output: io.StringIO
) -> None:
    supervisor = Supervisor(
        [Child(name, python(STUBBORN), grace_s=0.5) for name in ("one", "two")],
        tmp_path,
        out=output,
    )
    stop_s = run_until(supervisor, lambda: len(pids_in(output.getvalue())) == 4)
    assert 0.5 <= stop_s < 10
    assert "two did not stop in 0.5 s: killed" in output.getvalue()
    # SIGKILL takes its moment.
    eventually(lambda: not any(map(is_alive, pids_in(output.getvalue()))))


def test_what_a_crashed_child_had_started_goes_before_it_starts_again(
    tmp_path: Path, output: io.StringIO
) -> None:
    supervisor = Supervisor([Child("one", python(STUBBORN))], tmp_path, out=output, backoff=QUICK)

    def crash_once() -> bool:
        pids = pids_in(output.getvalue())
        if len(pids) == 2 and is_alive(pids[0]):
            os.kill(pids[0], signal.SIGKILL)
        return len(pids) == 4 and not is_alive(pids[1])

    run_until(supervisor, crash_once)
    eventually(lambda: not any(map(is_alive, pids_in(output.getvalue()))))


@pytest.fixture
def supervisor_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Run a supervisor in a process of its own, to be killed."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            python(code, *arguments),
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


KILLED = """
    import sys
    from pathlib import Path
    from rheos.supervisor import Child, Supervisor, folder_lock
    sleep = "import os, time; print('pids', os.getpid(), flush=True); time.sleep(600)"
    with folder_lock(Path(sys.argv[1])):
        Supervisor(
            [Child(f"c{i}", [sys.executable, "-c", sleep]) for i in range(3)], Path(sys.argv[1])
        ).run()
    """


def test_the_children_of_a_killed_supervisor_end_and_its_folder_is_free(
    tmp_path: Path, supervisor_process: Callable[..., subprocess.Popen[str]]
) -> None:
    process = supervisor_process(KILLED, tmp_path)
    assert process.stdout is not None
    pids: list[int] = []
    while len(pids) < 3:
        pids += pids_in(process.stdout.readline())
    with pytest.raises(FolderBusyError, match=f"{tmp_path} is in use by process {process.pid}: "):
        folder_lock(tmp_path).__enter__()
    assert all(map(is_alive, pids))
    process.kill()
    process.wait()
    eventually(lambda: not any(map(is_alive, pids)))
    with folder_lock(tmp_path):
        pass


def test_a_second_ctrl_c_kills_at_once(
    tmp_path: Path, supervisor_process: Callable[..., subprocess.Popen[str]]
) -> None:
    code = """
        import sys
        from pathlib import Path
        from rheos.supervisor import Child, Supervisor
        Supervisor([Child("a", sys.argv[2:], grace_s=9)], Path(sys.argv[1])).run()
        """
    process = supervisor_process(code, tmp_path, *python(STUBBORN))
    assert process.stdout is not None
    pids = pids_in(process.stdout.readline())
    process.send_signal(signal.SIGHUP)
    assert "SIGHUP: stopping" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert all(map(is_alive, pids))
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert time.monotonic() - started < 6  # of the grace nearly 9 s were left
    eventually(lambda: not any(map(is_alive, pids)))


def test_a_closed_pipe_leaves_the_children_and_the_files_alone(
    tmp_path: Path, supervisor_process: Callable[..., subprocess.Popen[str]]
) -> None:
    code = """
        import sys
        from pathlib import Path
        from rheos.supervisor import Child, Supervisor
        tick = "import time\\nwhile True: print('tick'); time.sleep(0.05)"
        Supervisor([Child("a", [sys.executable, "-c", tick])], Path(sys.argv[1])).run()
        """
    process = supervisor_process(code, tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    file = tmp_path / "a.log"
    size = file.stat().st_size
    eventually(lambda: file.stat().st_size > size + 50)
    assert process.poll() is None
    process.terminate()
    process.wait(60)


def test_where_the_kernel_cannot_do_it_a_watcher_ends_the_program(
    supervisor_process: Callable[..., subprocess.Popen[str]],
) -> None:
    code = """
        import subprocess, sys, time
        from rheos.supervisor import tether
        sleep = "print('pids', os.getpid(), os.getppid(), flush=True); time.sleep(600)"
        command = tether.tethered([sys.executable, "-c", "import os, time; " + sleep])
        other = "import sys; sys.platform = 'other'; sys.argv = sys.argv[1:]; import runpy; " \\
            "runpy.run_path(sys.argv[0], run_name='__main__')"
        subprocess.Popen([sys.executable, "-c", other, *command[3:]], start_new_session=True)
        time.sleep(600)
        """
    process = supervisor_process(code)
    assert process.stdout is not None
    pids = pids_in(process.stdout.readline())
    assert all(map(is_alive, pids))
    process.kill()
    eventually(lambda: not any(map(is_alive, pids)))


def test_the_watcher_passes_on_the_exit_status() -> None:
    from rheos.supervisor.tether import _watch

    handlers = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert _watch(os.getppid(), python("raise SystemExit(9)")) == 9
        assert _watch(os.getppid(), python("import os; os.kill(os.getpid(), 9)")) == 137
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)


def test_the_merged_log_prefixes_lines_and_bounds_files(
    tmp_path: Path, output: io.StringIO
) -> None:
    log = MergedLog(tmp_path, output, ["a", "long"])
    log.write("a", b"one\xff")
    log.write("long", b" 10%\r 20%\r")
    log.write("a", b"x" * FILE_LIMIT_BYTES)
    log.write("a", b"after")
    log.close()
    assert output.getvalue().startswith("a    | one�\nlong |  20%\na    | xxx")
    assert (tmp_path / "a.log.1").stat().st_size > FILE_LIMIT_BYTES
    assert (tmp_path / "a.log").read_bytes() == b"after\n"


def test_lines_without_an_end_and_very_long_ones_arrive(
    tmp_path: Path, output: io.StringIO
) -> None:
    code = "import sys; sys.stderr.write('e' * 300_000); sys.stdout.write('last')"
    Supervisor(
        [Child("one", python(code), one_shot=True)], tmp_path, out=output, backoff=QUICK
    ).run()
    text = (tmp_path / "one.log").read_text()
    assert text.count("e") == 300_000
    assert "last" in text


def test_a_wish_that_cannot_be_met_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same name"):
        Supervisor([Child("a", SLEEP), Child("a", SLEEP)], tmp_path)
    with pytest.raises(ValueError, match="exceed 9 s"):
        Supervisor([Child(f"c{i}", SLEEP, stop_order=i, grace_s=4) for i in range(3)], tmp_path)


@pytest.mark.kafka
@pytest.mark.slow
def test_kafka_is_healed_after_kill_9_and_ends_with_its_supervisor(
    tmp_path: Path, supervisor_process: Callable[..., subprocess.Popen[str]]
) -> None:
    code = """
        import sys
        from pathlib import Path
        from rheos.local_kafka import LocalKafka
        from rheos.supervisor import Child, Supervisor
        data, jars, port, controller_port = sys.argv[1:]
        kafka = LocalKafka(Path(data), Path(jars), int(port), int(controller_port))
        kafka.prepare()
        child = Child("kafka", kafka.argv(), ready=kafka.is_ready)
        supervisor = Supervisor([child], Path(data) / "logs", on_ready=lambda: None)
        supervisor.run()
        """
    kafka = new_broker(tmp_path).kafka
    arguments = [tmp_path, kafka.jars_dir, kafka.port, kafka.controller_port]

    def jvm() -> int:
        found = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if str(tmp_path / "kafka.properties").encode() in _read(path)
        ]
        return found[0] if found else 0

    process = supervisor_process(code, *arguments)
    kafka.wait_ready()
    first = jvm()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: jvm() not in (0, first))
    kafka.wait_ready()

    second = jvm()
    process.kill()
    process.wait()
    eventually(lambda: not is_alive(second))

    process = supervisor_process(code, *arguments)  # nothing left in the folder is in its way
    kafka.wait_ready()
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert process.wait(60) == 0
    assert time.monotonic() - started < 10
    assert jvm() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", kafka.port))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""

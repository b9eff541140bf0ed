"""The peer of stream_speed.py: Faust's own ``async for`` over raw records, doing nothing with them.

    python -m benchmarks.bare_faust OUT BOOTSTRAP TOPIC GROUP POLL_RECORDS WARM_UP COUNT

OUT gets the seconds and the CPU seconds between the WARM_UP-th and the COUNT-th record.
"""

import os
import sys
import time
from pathlib import Path

import faust
from faust.types import StreamT


def main(
    out: str, bootstrap: str, topic: str, group: str, poll: int, warm_up: int, count: int
) -> None:
    app = faust.App(
        group,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=f"{out}-data",  # by default a folder where the command was run
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=poll,
    )
    records = app.topic(topic, key_type=bytes, value_type=bytes, value_serializer="raw")

    @app.agent(records)  # type: ignore[untyped-decorator]
    async def nothing(stream: StreamT[bytes]) -> None:
        seen, began, used = 0, 0.0, 0.0
        async for _ in stream:
            seen += 1
            if seen == warm_up:
                began, used = time.perf_counter(), time.process_time()
            if seen == count:
                took = time.perf_counter() - began, time.process_time() - used
                Path(out).write_text("{} {}".format(*took), "utf-8")
                os._exit(0)  # a clean stop waits for the group; nothing here is worth keeping

    app.finalize()
    faust.Worker(app, loglevel="ERROR", quiet=True).execute_from_commandline()


if __name__ == "__main__":
    _, out, bootstrap, topic, group, *numbers = sys.argv
    main(out, bootstrap, topic, group, *map(int, numbers))

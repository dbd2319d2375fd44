#!/usr/bin/env python3
"""record_event, durable, beside the reference's own append to a file.

    bench.py [--events N] [--dir FOLDER]

The reference opens its file, writes a line, flushes and closes it, each step
in a worker thread, and never syncs: what it acknowledges is lost with the
power. Ours is on disk when the call returns. All rows are one run on one
machine and one file system; the interleaved rounds share its noise. The last
column is the p95 in times of the reference's.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from kaizen_audit import AuditTrailManager

ROUNDS = 5


def event(i):
    return {
        "timestamp": "2025-10-26T10:53:45.123Z", "event_type": "TOOL_USE", "agent_id": "qa-agent-001",
        "trace_id": "abc123def456", "action": "tool_use:search_flights",
        "inputs": {"origin": "JFK", "destination": "SEA", "date": "2024-05-20", "n": i},
        "outputs": {"flights": [{"flight": "HAT069", "price": 51, "seats": 16}] * 3},
        "duration_ms": 45.2, "success": True, "error": None,
        "metadata": {"user_id": "user123", "session_id": "session456", "environment": "production"},
    }  # fmt: skip


async def reference_append(path, entry):
    """As the reference: every step of the file in a thread."""
    loop = asyncio.get_running_loop()
    line = json.dumps(entry) + "\n"
    f = await loop.run_in_executor(None, open, path, "a")
    await loop.run_in_executor(None, f.write, line)
    await loop.run_in_executor(None, f.flush)
    await loop.run_in_executor(None, f.close)


def plain_append(path, entry, sync):
    with open(path, "a") as f:
        f.write(json.dumps(entry) + "\n")
        f.flush()
        if sync:
            os.fdatasync(f.fileno())


def timed(times, call, *args):
    begun = time.perf_counter()
    call(*args)
    times.append(time.perf_counter() - begun)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=2000, help="single events of each row")
    parser.add_argument("--dir", help="where the files are made (default: a temporary folder)")
    args = parser.parse_args()
    n = max(args.events // ROUNDS, 1)
    with tempfile.TemporaryDirectory(prefix="kaizen-audit-bench-", dir=args.dir) as folder:
        os.environ["KAIZEN_AUDIT_STATE"] = os.path.join(folder, "state")
        manager = AuditTrailManager(os.path.join(folder, "audit.jsonl"))
        manager.record_event(event(0))
        loop = asyncio.new_event_loop()
        rows = {}

        def run(name, one, threads=1):
            times = rows.setdefault(name, ([], []))
            begun = time.perf_counter()
            if threads == 1:
                for i in range(n):
                    timed(times[0], one, i)
            else:
                with ThreadPoolExecutor(threads) as pool:
                    list(pool.map(lambda i: timed(times[0], one, i), range(n)))
            times[1].append(n / (time.perf_counter() - begun))

        async def together(count):
            await asyncio.gather(*(manager.arecord_event(event(i)) for i in range(count)))

        for _ in range(ROUNDS):
            path = os.path.join(folder, "reference.jsonl")
            run("reference append, not synced", lambda i: loop.run_until_complete(reference_append(path, event(i))))
            run("open, write, close, not synced", lambda i: plain_append(path, event(i), False))
            run("open, write, fdatasync, close", lambda i: plain_append(path, event(i), True))
            run("record_event, durable", lambda i: manager.record_event(event(i)))
            run("record_event, durable, 8 threads", lambda i: manager.record_event(event(i)), 8)
            run("arecord_event, durable", lambda i: loop.run_until_complete(manager.arecord_event(event(i))))
        base = percentile(rows["reference append, not synced"][0], 0.95)
        print(f"{'':34}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'events/s':>10}{'p95 ratio':>11}")
        for name, (times, rates) in rows.items():
            p50, p95, p99 = (percentile(times, p) for p in (0.5, 0.95, 0.99))
            print(f"{name:34}{p50:9.3f}{p95:9.3f}{p99:9.3f}{statistics.median(rates):10.0f}{p95 / base:11.2f}")
        for name, call in (
            ("record_events, durable, 500 a call", lambda: [manager.record_events(map(event, range(500))) for _ in range(10)]),
            ("arecord_event, 5,000 at once", lambda: loop.run_until_complete(together(5000))),
        ):  # fmt: skip
            begun = time.perf_counter()
            call()
            print(f"{name:61}{5000 / (time.perf_counter() - begun):10.0f}")
        loop.close()
        os.kill(manager.info()["pid"], signal.SIGTERM)
        manager.close()
        time.sleep(0.2)


def percentile(times, p):
    return sorted(times)[min(int(len(times) * p), len(times) - 1)] * 1000


if __name__ == "__main__":
    main()

"""Eight worker processes on one trail whose holder is killed again and again.

KAIZEN_AUDIT_ROUNDS is how often; how long the workers
waited for the next holder is printed with 20 rounds or more.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time

from common import BINARY, EVENT, TrailTest, alive, holders, wait_for


ROUNDS = int(os.environ.get("KAIZEN_AUDIT_ROUNDS", "5"))
WORKERS = 8


def work(n, manager, acknowledged, stop):
    """Records until it is told to stop, and notes every receipt."""
    i = 0
    with open(acknowledged, "w") as out:
        while not os.path.exists(stop):
            receipt = manager.record_event({**EVENT, "trace_id": f"w{n}", "inputs": {"i": i}})
            print(json.dumps([i, receipt.index, receipt.event_id, time.monotonic()]), file=out, flush=True)
            i += 1


class TakeOver(TrailTest):
    def test_every_acknowledged_event_is_there_once_however_often_the_holder_is_killed(self):
        manager = self.manager(timeout=30)
        manager.record_event(EVENT)
        stop = os.path.join(self.folder, "stop")
        notes = [os.path.join(self.folder, f"worker{n}") for n in range(WORKERS)]
        workers = []
        for n in range(WORKERS):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    work(n, manager, notes[n], stop)
                    code = 0
                finally:
                    os._exit(code)
            workers.append(pid)
        kills = []
        try:
            for _ in range(ROUNDS):
                time.sleep(0.15)
                pid = manager.info()["pid"]
                os.kill(pid, signal.SIGKILL)
                kills.append(time.monotonic())
                wait_for(lambda: not alive(pid))
                # The next round begins when somebody has recorded again.
                manager.record_event({**EVENT, "trace_id": "parent"})
        finally:
            open(stop, "w").close()
            codes = [os.waitpid(pid, 0)[1] for pid in workers]
        self.assertEqual(codes, [0] * WORKERS)
        acknowledged = []
        for name in notes:
            with open(name) as f:
                acknowledged.append([json.loads(line) for line in f])
        for n, rows in enumerate(acknowledged):
            entries = manager.query_by_trace(f"w{n}")
            # Each once, in order, with the receipt that its worker has.
            self.assertEqual(
                [(e.inputs["i"], e.index, e.event_id) for e in entries], [tuple(row[:3]) for row in rows]
            )
            self.assertGreater(len(rows), ROUNDS)
        times = sorted(row[3] for rows in acknowledged for row in rows)
        # A take-over is the longest silence of all workers around a kill.
        gaps = [
            max(b - a for a, b in zip(times, times[1:]) if b > kill and a < kill + 0.15) for kill in kills
        ]
        if ROUNDS >= 20:
            print(
                f"take-over of {ROUNDS}: median {statistics.median(gaps) * 1000:.0f} ms, "
                f"longest {max(gaps) * 1000:.0f} ms; {len(times)} events",
                file=sys.stderr,
            )
        manager.close()
        for pid in holders(self.log):
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not alive(pid))
        done = subprocess.run([BINARY, "verify", "--log", self.log], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

"""What the tests share: a trail of its own for each, with a state folder of
its own, and the holder's end by its pid."""

import os
import signal
import sys
import tempfile
import time
import unittest

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
try:
    import kaizen_audit  # installed, as by make python
except ImportError:
    sys.path.insert(0, _PACKAGE)

from kaizen_audit import AuditTrailManager  # noqa: E402

BINARY = os.environ.setdefault(
    "KAIZEN_AUDIT_BIN", os.path.join(_PACKAGE, "..", "..", "bin", "kaizen-audit")
)

EVENT = {"event_type": "TOOL_USE", "agent_id": "test-agent", "action": "tool_use:calculator"}


class TrailTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="kaizen-audit-")
        self.addCleanup(folder.cleanup)
        self.addCleanup(end_all_holders, folder.name)
        self.folder = folder.name
        self.log = os.path.join(self.folder, "audit.jsonl")
        before = os.environ.get("KAIZEN_AUDIT_STATE")
        os.environ["KAIZEN_AUDIT_STATE"] = os.path.join(self.folder, "state")
        self.addCleanup(
            lambda: os.environ.pop("KAIZEN_AUDIT_STATE")
            if before is None
            else os.environ.__setitem__("KAIZEN_AUDIT_STATE", before)
        )

    def manager(self, log=None, **options):
        manager = AuditTrailManager(audit_log_path=log or self.log, **options)
        self.addCleanup(manager.close)
        return manager

    def end_holder(self, manager, sig=signal.SIGTERM):
        """Ends the holder, without starting one, and waits until it is gone."""
        client = manager._client
        if not os.path.exists(os.path.join(client.directory, "sock")):
            return
        client._start = _no_start
        try:
            pid = manager.info()["pid"]
        except Exception:
            return
        finally:
            del client._start
        os.kill(pid, sig)
        wait_for(lambda: not alive(pid))


def holders(path):
    """The processes that hold, or want to hold, a trail under path."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if b"serve" in words and any(w.startswith(os.fsencode(path)) for w in words):
            found.append(int(pid))
    return found


def end_all_holders(path):
    def none_left():
        for pid in holders(path):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        return not holders(path)

    wait_for(none_left)


def _no_start():
    raise OSError("no holder is to be started")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not come to pass")
        time.sleep(0.005)

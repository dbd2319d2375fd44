import asyncio
import datetime
import decimal
import hashlib
import json
import os
import signal
import socket
import threading
import time
import unittest

from common import EVENT, TrailTest, holders, wait_for

import kaizen_audit
from kaizen_audit import (
    AuditTrailManager,
    BatchError,
    ClosedError,
    HolderError,
    RefusedError,
    UnavailableError,
)


class Options(unittest.TestCase):
    def test_reading_needs_a_role_where_access_is_controlled(self):
        with self.assertRaises(ValueError):
            AuditTrailManager(audit_log_path="a.jsonl", allowed_roles=["auditor"])

    def test_an_option_left_at_its_documented_default_is_none(self):
        AuditTrailManager(
            audit_log_path="a.jsonl", retention_days=2555, encrypt_at_rest=False, encryption_key=None,
            access_control=False, allowed_roles=[], rotation_interval=None, backup_to_s3=False,
            s3_bucket=None,
        )  # fmt: skip

    def test_a_backup_needs_its_bucket(self):
        for option in ({"backup_to_s3": True}, {"s3_bucket": "b"}):
            with self.subTest(option), self.assertRaisesRegex(ValueError, "go together"):
                AuditTrailManager(audit_log_path="a.jsonl", **option)

    def test_the_module_imports_no_framework(self):
        import subprocess, sys

        code = (
            "import sys; before=set(sys.modules); import kaizen_audit; "
            "print([m for m in set(sys.modules)-before if m.split('.')[0] in "
            "('kaizen','langchain','langchain_core','langgraph','agents','openai','pydantic','anyio')])"
        )
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            cwd=os.path.dirname(os.path.dirname(kaizen_audit.__file__)),
        )  # fmt: skip
        self.assertEqual(out.stdout.strip(), "[]")


class Recording(TrailTest):
    def test_an_event_is_read_back_as_recorded(self):
        manager = self.manager()
        receipt = manager.record_event({
            **EVENT, "timestamp": "2025-10-26T10:53:45.123Z", "trace_id": "t1",
            "inputs": {"amount": decimal.Decimal("10.50"), "text": "grüße\n\u2028"}, "outputs": {"ok": True},
            "duration_ms": 45.2, "success": False, "error": "no", "metadata": {"user_id": "u1"},
        })  # fmt: skip
        (entry,) = manager.query_by_agent("test-agent")
        self.assertEqual((entry.index, entry.event_id, entry.digest), receipt[:3])
        self.assertEqual(entry.digest, hashlib.sha256(entry.line).hexdigest())
        self.assertEqual(
            entry.timestamp, datetime.datetime(2025, 10, 26, 10, 53, 45, 123000, datetime.timezone.utc)
        )
        self.assertEqual(entry.action, "tool_use:calculator")
        self.assertEqual(entry.duration_ms, 45.2)
        self.assertIs(entry.success, False)
        self.assertEqual(entry.error, "no")
        self.assertEqual(entry.metadata.get("user_id"), "u1")
        self.assertEqual(entry.inputs["amount"], decimal.Decimal("10.50"))
        self.assertIn(b'"amount":10.50', entry.line)
        self.assertEqual(entry.inputs["text"], "grüße\n\u2028")
        self.assertIsNone(entry.resource)
        with self.assertRaises(AttributeError):
            entry.nothing
        with open(self.log, "rb") as f:
            self.assertIn(entry.line + b"\n", f.read())

    def test_what_is_absent_has_the_documented_default(self):
        manager = self.manager()
        manager.record_event({"metadata": {"user_id": "u1"}})
        (entry,) = manager.audit_entries
        self.assertEqual(
            (entry.event_type, entry.agent_id, entry.action), ("UNSPECIFIED", "unspecified", "unspecified")
        )
        self.assertEqual((entry.inputs, entry.outputs, entry.duration_ms), ({}, {}, 0))
        self.assertIs(entry.success, True)
        self.assertIsNone(entry.error)
        self.assertTrue(entry.trace_id)
        age = datetime.datetime.now(datetime.timezone.utc) - entry.timestamp
        self.assertLess(abs(age.total_seconds()), 60)

    def test_a_timestamp_may_be_a_datetime_a_text_or_seconds(self):
        manager = self.manager()
        zone = datetime.timezone(datetime.timedelta(hours=2))
        for at in (datetime.datetime(2025, 10, 26, 12, 0, tzinfo=zone), 1761472800.0, "2025-10-26T10:00:00Z"):
            manager.record_event({**EVENT, "timestamp": at})
        for entry in manager.audit_entries:
            self.assertEqual(
                entry.timestamp, datetime.datetime(2025, 10, 26, 10, tzinfo=datetime.timezone.utc)
            )

    def test_a_refused_event_says_why_and_is_not_sent_again(self):
        manager = self.manager()
        with self.assertRaisesRegex(RefusedError, "record event: .*agent_id"):
            manager.record_event({**EVENT, "agent_id": "kaizen-audit"})
        with self.assertRaises(RefusedError):
            manager.record_event("text")
        self.assertEqual(manager.audit_entries, [])

    def test_a_batch_is_recorded_in_order_and_names_what_was_refused(self):
        manager = self.manager()
        receipts = manager.record_events({**EVENT, "inputs": {"i": i, "pad": "x" * 3000}} for i in range(2500))
        self.assertEqual([r.index - receipts[0].index for r in receipts], list(range(2500)))
        self.assertEqual([e.inputs["i"] for e in manager.audit_entries], list(range(2500)))
        with self.assertRaisesRegex(BatchError, "3 events: 1 not recorded") as caught:
            manager.record_events([EVENT, {**EVENT, "agent_id": "kaizen-audit"}, EVENT])
        self.assertEqual(
            [type(r).__name__ for r in caught.exception.results], ["Receipt", "RefusedError", "Receipt"]
        )
        self.assertEqual(manager.record_events([]), [])

    def test_the_same_idempotency_key_is_recorded_once(self):
        manager = self.manager()
        event = {**EVENT, "timestamp": "2025-10-26T10:00:00Z", "trace_id": "t", "idempotency_key": "k1"}
        self.assertEqual(manager.record_event(event), manager.record_event(event))
        self.assertEqual(len(manager.audit_entries), 1)

    def test_a_closed_manager_records_nothing(self):
        manager = self.manager()
        manager.record_event(EVENT)
        self.end_holder(manager)
        with manager:
            pass
        manager.close()
        for call in (lambda: manager.record_event(EVENT), lambda: manager.audit_entries, manager.info):
            self.assertRaises(ClosedError, call)

    def test_a_path_longer_than_a_socket_address_works(self):
        folder = os.path.join(self.folder, "d" * 60, "e" * 60)
        os.makedirs(folder)
        manager = self.manager(os.path.join(folder, "audit.jsonl"))
        manager.record_event(EVENT)
        self.assertEqual(len(manager.audit_entries), 1)

    def test_a_link_to_the_log_is_the_same_trail(self):
        link = os.path.join(self.folder, "link.jsonl")
        os.symlink(self.log, link)
        self.manager().record_event(EVENT)
        self.assertEqual(len(self.manager(link).audit_entries), 1)


class Queries(TrailTest):
    def test_the_documented_queries(self):
        manager = self.manager()
        utc = datetime.timezone.utc
        start = datetime.datetime(2025, 10, 26, 10, tzinfo=utc)
        for i in range(3):
            manager.record_event({
                **EVENT, "agent_id": f"a*{i}", "trace_id": "t1", "timestamp": start + datetime.timedelta(seconds=i),
                "metadata": {"user_id": f"u{i % 2}"},
            })  # fmt: skip
        manager.record_event({**EVENT, "agent_id": "a11", "trace_id": "t2"})
        self.assertEqual([e.agent_id for e in manager.query_by_agent("a*1")], ["a*1"])
        self.assertEqual(len(manager.query_by_trace("t1")), 3)
        self.assertEqual(len(manager.query_by_user("u0")), 2)
        self.assertEqual(len(manager.query_by_timerange(start, start + datetime.timedelta(seconds=1))), 2)
        self.assertEqual(len(manager.audit_entries), 4)
        self.assertEqual(len([e for e in manager.audit_entries if e.metadata.get("user_id") == "u1"]), 1)
        now = datetime.datetime.now()
        self.assertEqual(len(manager.query_by_timerange(now - datetime.timedelta(days=1), now)), 1)
        self.assertEqual(len(json.loads(manager.export_user_data("u0"))), 2)
        self.assertIn("AUDIT TRAIL COMPLIANCE REPORT", manager.export_compliance_report())
        self.assertGreaterEqual(manager.info()["size"], 4)

    def test_an_empty_id_does_not_mean_everybody(self):
        manager = self.manager()
        for call in (
            manager.query_by_agent, manager.query_by_trace, manager.query_by_user, manager.export_user_data,
        ):  # fmt: skip
            self.assertRaises(ValueError, call, "")

    def test_an_iteration_left_early_leaves_the_manager_usable(self):
        manager = self.manager()
        manager.record_events([{**EVENT, "inputs": {"pad": "x" * 1000}}] * 2000)
        for entry in manager.query():
            break
        self.assertEqual(entry.index, manager.audit_entries[0].index)
        self.assertEqual(len(manager.audit_entries), 2000)


class Holders(TrailTest):
    def test_a_missing_program_is_named_at_once(self):
        manager = self.manager()
        manager._client.binary = "/nowhere/kaizen-audit"
        begun = time.monotonic()
        with self.assertRaisesRegex(HolderError, "no such program: install .* KAIZEN_AUDIT_BIN"):
            manager.record_event(EVENT)
        self.assertLess(time.monotonic() - begun, 1)

    def test_a_holder_that_cant_start_is_an_error_that_says_how_to_see_why(self):
        manager = self.manager(timeout=5)
        manager._client.binary = "false"
        with self.assertRaisesRegex(HolderError, "serve ended with exit code 1 .* `kaizen-audit serve --log"):
            manager.record_event(EVENT)

    def test_one_that_never_answers_is_an_error_in_time(self):
        os.makedirs(os.path.join(self.folder, "audit.trail"))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(self.folder, "audit.trail", "sock"))
            listener.listen(1)
            manager = AuditTrailManager(self.log, timeout=0.3)
            begun = time.monotonic()
            with self.assertRaises(UnavailableError) as caught:
                manager.record_event({**EVENT, "idempotency_key": "mine"})
            self.assertLess(time.monotonic() - begun, 2)
            self.assertEqual(caught.exception.idempotency_key, "mine")

    def test_after_the_holder_ends_the_next_one_takes_over(self):
        manager = self.manager()
        first = manager.record_event(EVENT)
        pid = manager.info()["pid"]
        for sig in (signal.SIGTERM, signal.SIGKILL):
            self.end_holder(manager, sig)
            manager.record_event(EVENT)
        self.assertNotEqual(manager.info()["pid"], pid)
        entries = manager.audit_entries
        self.assertEqual(len(entries), 3)
        self.assertEqual(entries[0].index, first.index)

    def test_every_acknowledged_event_is_there_once_while_holders_are_killed(self):
        manager = self.manager()
        manager.record_event(EVENT)
        receipts, stop = [], threading.Event()

        def work(n):
            mine = self.manager()
            i = 0
            while not stop.is_set():
                receipts.append((n, i, mine.record_event({**EVENT, "trace_id": f"w{n}", "inputs": {"i": i}})))
                i += 1

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for _ in range(5):
            time.sleep(0.1)
            self.end_holder(manager, signal.SIGKILL)
        time.sleep(0.1)
        stop.set()
        for t in threads:
            t.join()
        entries = {e.event_id: e for e in manager.audit_entries if e.trace_id.startswith("w")}
        self.assertEqual(len(entries), len(receipts))
        for n, i, receipt in receipts:
            entry = entries[receipt.event_id]
            self.assertEqual((entry.trace_id, entry.inputs["i"], entry.index), (f"w{n}", i, receipt.index))


class Concurrency(TrailTest):
    def test_threads_share_a_manager(self):
        manager, failures = self.manager(), []

        def work(n):
            try:
                for i in range(50):
                    manager.record_event({**EVENT, "trace_id": f"t{n}", "inputs": {"i": i}})
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        self.assertLessEqual(len(manager._client.streams), 16)
        for n in range(16):
            self.assertEqual([e.inputs["i"] for e in manager.query_by_trace(f"t{n}")], list(range(50)))

    def test_asyncio_records_at_once_and_never_blocks_the_loop(self):
        manager = self.manager()
        manager.record_event(EVENT)

        async def main():
            longest = 0.0

            async def tick():
                nonlocal longest
                while True:
                    begun = time.perf_counter()
                    await asyncio.sleep(0)
                    longest = max(longest, time.perf_counter() - begun)

            os.kill(manager.info()["pid"], signal.SIGSTOP)
            try:
                ticking = asyncio.ensure_future(tick())
                tasks = [asyncio.ensure_future(manager.arecord_event({**EVENT, "inputs": {"i": i}})) for i in range(200)]
                await asyncio.sleep(0.5)
                self.assertFalse(any(t.done() for t in tasks))
            finally:
                os.kill(pid, signal.SIGCONT)
            receipts = await asyncio.gather(*tasks)
            ticking.cancel()
            return receipts, longest

        pid = manager.info()["pid"]
        receipts, longest = asyncio.run(main())
        self.assertEqual(len({r.index for r in receipts}), 200)
        # The holder stood still for half a second; the loop did not.
        self.assertLess(longest, 0.4)
        with self.assertRaises(RefusedError):
            asyncio.run(manager.arecord_event({**EVENT, "agent_id": "kaizen-audit"}))

    def test_eight_forked_workers_on_one_trail(self):
        """As gunicorn with preload: the manager is made and used before."""
        manager = self.manager()
        manager.record_event({**EVENT, "trace_id": "parent"})
        streaming = manager.query()
        workers = []
        for n in range(8):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    threads = [
                        threading.Thread(
                            target=lambda k: [
                                manager.record_event({**EVENT, "trace_id": f"w{n}-{k}", "inputs": {"i": i}})
                                for i in range(25)
                            ],
                            args=(k,),
                        )
                        for k in range(2)
                    ]
                    for t in threads:
                        t.start()
                    for t in threads:
                        t.join()
                    asyncio.run(manager.arecord_event({**EVENT, "trace_id": f"w{n}-async"}))
                    code = 0
                finally:
                    os._exit(code)
            workers.append(pid)
            manager.record_event({**EVENT, "trace_id": "parent"})
        for pid in workers:
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(len(list(streaming)) > 0, True)
        self.assertEqual(len(manager.query_by_trace("parent")), 9)
        for n in range(8):
            self.assertEqual(len(manager.query_by_trace(f"w{n}-async")), 1)
            for k in range(2):
                self.assertEqual([e.inputs["i"] for e in manager.query_by_trace(f"w{n}-{k}")], list(range(25)))

    def test_processes_that_start_a_holder_at_once_end_with_one(self):
        workers = []
        for n in range(8):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    AuditTrailManager(self.log).record_event({**EVENT, "trace_id": f"w{n}"})
                    code = 0
                finally:
                    os._exit(code)
            workers.append(pid)
        for pid in workers:
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        manager = self.manager()
        self.assertEqual(sorted(e.trace_id for e in manager.audit_entries), [f"w{n}" for n in range(8)])
        wait_for(lambda: len(holders(self.log)) == 1)


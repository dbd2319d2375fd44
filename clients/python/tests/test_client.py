"""What the client does with answers that a healthy holder seldom gives: each
test writes them, byte by byte, on a socket of its own."""

import contextlib
import os
import re
import socket
import threading
import time

from common import EVENT, TrailTest

from kaizen_audit import (
    AuditError,
    BatchError,
    ConflictError,
    DeniedError,
    FullError,
    OutcomeUnknownError,
    ProtocolError,
    UnavailableError,
)

HEAD = b"HTTP/1.1 %d X\r\nKaizen-Audit-Protocol: 1\r\n"


def stream(*lines):
    """The begin of an answer that goes on."""
    return HEAD % 200 + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(*lines)


def chunks(*lines):
    return b"".join(b"%x\r\n%b\n\r\n" % (len(line) + 1, line) for line in lines)


def whole(status, body):
    return HEAD % status + b"Content-Length: %d\r\n\r\n" % len(body) + body


def receipt(index):
    return b'{"index":%d,"event_id":"e%d","digest":"%064d"}' % (index, index, index)


def error(code):
    return b'{"error":{"code":"%b","message":"said so"}}' % code


class Holder:
    """Answers every connection with the next of the scripts: a list of bytes,
    each sent when something has come; at the end it closes."""

    def __init__(self, directory, scripts):
        os.makedirs(directory, exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.path.join(directory, "sock"))
        self.listener.listen(16)
        self.scripts = list(scripts)
        self.requests = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        for script in self.scripts:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                for answer in script:
                    self.requests.append(connection.recv(1 << 20))
                    connection.sendall(answer)
        # More connections than scripts find nobody.
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Answers(TrailTest):
    def holder(self, *scripts, **options):
        holder = Holder(os.path.join(self.folder, "audit.trail"), scripts)
        self.addCleanup(holder.thread.join, 10)
        self.addCleanup(holder.close)
        manager = self.manager(**{"timeout": 2, **options})
        manager._client.binary = "/nowhere/kaizen-audit"  # no test here starts one
        return holder, manager

    def keys(self, holder):
        return [re.findall(rb'"idempotency_key":"([^"]+)"', r) for r in holder.requests]

    def test_a_holder_that_ends_before_it_answers_is_asked_again_with_the_same_key(self):
        for broken in ([], [b""], [b"HTTP/1.1 2"], [stream()], [stream()[:-1] + b"5\r\n{\"in"], [stream() + b"0\r\n\r\n"]):
            with self.subTest(broken=broken):
                holder, manager = self.holder(broken, [stream(receipt(7))])
                self.assertEqual(manager.record_event(EVENT).index, 7)
                (key,) = {key for keys in self.keys(holder) for key in keys}
                self.assertEqual(len(key), 22)  # 16 bytes in base64
                self.doCleanups()
                self.setUp()

    def test_an_event_that_an_ending_holder_did_not_take_goes_to_the_next(self):
        for code in (b"closed", b"stopped", b"unknown", b"busy"):
            for answer in (stream(error(code)), whole(503, error(code))):
                with self.subTest(code=code):
                    holder, manager = self.holder([answer], [stream(receipt(1))])
                    self.assertEqual(manager.record_event(EVENT).index, 1)
                    self.assertEqual(*self.keys(holder))
                    self.doCleanups()
                    self.setUp()

    def test_of_a_batch_only_what_was_not_answered_is_sent_again(self):
        holder, manager = self.holder([stream(receipt(0), error(b"closed"))], [stream(receipt(1), receipt(2))])
        events = [{**EVENT, "idempotency_key": k} for k in ("a", "b", "c")]
        self.assertEqual([r.index for r in manager.record_events(events)], [0, 1, 2])
        self.assertEqual(self.keys(holder), [[b"a", b"b", b"c"], [b"b", b"c"]])

    def test_events_of_a_connection_are_one_request(self):
        holder, manager = self.holder([stream(receipt(0)), chunks(receipt(1)), chunks(receipt(2))])
        self.assertEqual([manager.record_event(EVENT).index for _ in range(3)], [0, 1, 2])
        self.assertTrue(holder.requests[0].startswith(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n"))
        self.assertFalse(any(b"POST" in r for r in holder.requests[1:]))

    def test_the_durability_is_asked_for(self):
        holder, manager = self.holder([stream(receipt(0)[:-1] + b',"durable":false}')], durability="queued")
        self.assertIs(manager.record_event(EVENT).durable, False)
        self.assertIn(b"POST /v1/events?durability=queued ", holder.requests[0])

    def test_an_answer_that_is_final_is_an_error_of_its_kind(self):
        for code, kind in ((b"conflict", ConflictError), (b"denied", DeniedError), (b"internal", AuditError)):
            for answer in (stream(error(code)), whole(403, error(code))):
                with self.subTest(code=code):
                    holder, manager = self.holder([answer])
                    with self.assertRaisesRegex(kind, "record event: said so") as caught:
                        manager.record_event(EVENT)
                    self.assertEqual(caught.exception.code, code.decode())
                    self.assertEqual(len(holder.requests), 1)
                    self.doCleanups()
                    self.setUp()

    def test_a_full_disk_is_not_waited_for_long(self):
        holder, manager = self.holder([stream(error(b"full"))] + [chunks(error(b"full"))] * 9)
        begun = time.monotonic()
        with self.assertRaises(FullError) as caught:
            manager.record_event({**EVENT, "idempotency_key": "mine"})
        self.assertLess(time.monotonic() - begun, 1)
        self.assertEqual(caught.exception.idempotency_key, "mine")

    def test_an_event_without_an_answer_is_of_unknown_outcome(self):
        holder, manager = self.holder([b""], timeout=0.5)
        with self.assertRaisesRegex(OutcomeUnknownError, "sent, and then: start a holder") as caught:
            manager.record_event({**EVENT, "idempotency_key": "mine"})
        self.assertEqual(caught.exception.idempotency_key, "mine")
        self.doCleanups()
        self.setUp()
        holder, manager = self.holder([stream(receipt(0)), b""], timeout=0.5)
        with self.assertRaises(BatchError) as several:
            manager.record_events([EVENT, EVENT])
        first, second = several.exception.results
        self.assertEqual(first.index, 0)
        self.assertIsInstance(second, UnavailableError)
        self.assertEqual(len(second.idempotency_key), 22)

    def test_what_is_no_holder_is_told_from_one(self):
        for answer in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nKaizen-Audit-Protocol: 2\r\nContent-Length: 0\r\n\r\n",
            stream(b"not JSON"),
            stream(b'{"neither":1}'),
            stream(b"[1]"),
            whole(500, b"<html>"),
        ):
            with self.subTest(answer=answer):
                _, manager = self.holder([answer])
                self.assertRaises(ProtocolError, manager.record_event, EVENT)
                self.doCleanups()
                self.setUp()

    def test_a_reading_whose_end_is_missing_is_an_error_and_no_short_list(self):
        entry = b'{"index":3,"digest":"%064d","entry":{"agent_id":"a","timestamp":"2025-10-26T10:00:00.000Z"}}' % 0
        end = b'{"end":{"count":1,"cursor":""}}'
        _, manager = self.holder([stream(entry, end) + b"0\r\n\r\n"])
        self.assertEqual([e.index for e in manager.audit_entries], [3])
        for answer in (
            stream(entry),
            stream(entry) + b"0\r\n\r\n",
            stream(entry, error(b"internal")) + b"0\r\n\r\n",
            stream(entry, b'{"index":"x"}', end),
            stream(entry)[:-20],
        ):
            with self.subTest(answer=answer):
                self.doCleanups()
                self.setUp()
                _, manager = self.holder([answer])
                with self.assertRaises(AuditError):
                    manager.audit_entries

    def test_a_reading_is_asked_again_where_no_answer_began(self):
        for broken in ([], [b""], [whole(503, error(b"closed"))]):
            with self.subTest(broken=broken):
                _, manager = self.holder(broken, [whole(200, b"the report")])
                self.assertEqual(manager.export_compliance_report(), "the report")
                self.doCleanups()
                self.setUp()

    def test_a_socket_of_another_user_is_not_used(self):
        if os.geteuid() != 0:
            self.skipTest("only root can make one")
        directory = os.path.join(self.folder, "audit.trail")
        ready, pid = os.pipe(), None
        os.makedirs(directory)
        os.chmod(self.folder, 0o777)
        os.chmod(directory, 0o777)
        pid = os.fork()
        if pid == 0:
            try:
                os.setuid(65534)
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(os.path.join(directory, "sock"))
                listener.listen(1)
                os.write(ready[1], b"x")
                time.sleep(20)
            finally:
                os._exit(0)
        try:
            os.read(ready[0], 1)
            with self.assertRaisesRegex(UnavailableError, "user 65534 listens there"):
                self.manager(timeout=2).record_event(EVENT)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(ready[0])
            os.close(ready[1])

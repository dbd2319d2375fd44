"""What the adapters share: actions that begin and end, and a way to record
them that never fails the agent.

An action that began and whose end never came is recorded with the outcome
``unknown`` when the capture is closed. What could not be recorded is counted
in ``lost``, logged without a value, and said by an entry (``CAPTURE_LOST``) as
soon as the trail takes one again.
"""

from __future__ import annotations

import asyncio
import atexit
import datetime
import logging
import os
import queue
import threading
import time
import weakref
from typing import Any, Optional

from ._errors import AuditError, BatchError, RefusedError
from ._json import omitted
from ._manager import AuditTrailManager

log = logging.getLogger("kaizen_audit")

# More open actions than this are not an agent's: the oldest counts as unknown.
_MAX_OPEN = 10_000

# What waits for the background thread. A full queue makes the agent wait,
# at most _MAX_WAIT seconds; then the event is lost and counted.
_MAX_QUEUED = 10_000
_MAX_WAIT = 1.0


class Capture:
    """Records events for an adapter.

    :param manager: where they go.
    :param agent_id: the agent of all events; by default what the framework
        says.
    :param metadata: what every event's metadata has, such as ``user_id``.
    :param fail_closed: True makes an event that can't be recorded an error of
        the agent's action; by default it is counted and logged.
    :param background: record in a thread and return at once. What is queued
        when the process is killed is lost.
    """

    def __init__(
        self,
        manager: AuditTrailManager,
        agent_id: Optional[str] = None,
        metadata: Optional[dict[str, Any]] = None,
        fail_closed: bool = False,
        background: bool = False,
    ) -> None:
        self.manager = manager
        self.agent_id = agent_id
        self.metadata = dict(metadata or {})
        self.fail_closed = fail_closed
        self.lost = 0
        self._said = 0
        self._mu = threading.Lock()
        self._open: dict[Any, dict[str, Any]] = {}
        self._background = background and not fail_closed
        self._writer: Optional[_Writer] = None
        self._pid = os.getpid()
        manager._captures.add(self)

    def begin(self, key: Any, event: dict[str, Any]) -> None:
        """An action began; it is recorded when it ends."""
        event.setdefault("timestamp", datetime.datetime.now(datetime.timezone.utc))
        event["_begun"] = time.monotonic()
        oldest = None
        with self._mu:
            self._own()
            self._open[key] = event
            if len(self._open) > _MAX_OPEN:
                oldest = self._open.pop(next(iter(self._open)))
        if oldest is not None:
            self.record(_unknown(oldest))

    def take(self, key: Any) -> Optional[dict[str, Any]]:
        """The action that began with key, with its duration until now."""
        with self._mu:
            self._own()
            event = self._open.pop(key, None)
        if event is not None:
            event["duration_ms"] = round((time.monotonic() - event.pop("_begun")) * 1000, 3)
        return event

    def record(self, event: dict[str, Any]) -> None:
        event = self._whole(event)
        if self._background:
            self._queue(event)
            return
        try:
            self._put(event)
        except AuditError as error:
            self._failed(error, 1)

    async def arecord(self, event: dict[str, Any]) -> None:
        """record without blocking an asyncio loop; elsewhere it blocks."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # another loop than asyncio's
            return self.record(event)
        if self._background:
            return self.record(event)
        event = self._whole(event)
        try:
            try:
                await self.manager.arecord_event(event)
            except RefusedError as error:
                await self.manager.arecord_event(_reduced(event, error))
            if self.lost > self._said:
                await asyncio.get_running_loop().run_in_executor(None, self._say_lost)
        except AuditError as error:
            self._failed(error, 1)

    def flush(self, seconds: float = 10.0) -> None:
        """Waits until what is queued is recorded."""
        if self._writer is not None and self._pid == os.getpid():
            self._writer.flush(seconds)

    def close(self) -> None:
        """Records what is open as of unknown outcome, and flushes."""
        with self._mu:
            self._own()
            events, self._open = list(self._open.values()), {}
        for event in events:
            self.record(_unknown(event))
        self.flush()

    def _own(self) -> None:
        """After a fork what is open or queued is the parent's to tell."""
        if self._pid != os.getpid():
            self._pid, self._open, self._writer = os.getpid(), {}, None

    def _whole(self, event: dict[str, Any]) -> dict[str, Any]:
        event.pop("_begun", None)
        if self.agent_id:
            event["agent_id"] = self.agent_id
        if self.metadata:
            event["metadata"] = {**self.metadata, **event.get("metadata", {})}
        return {k: v for k, v in event.items() if v is not None}

    def _put(self, event: dict[str, Any]) -> None:
        try:
            self.manager.record_event(event)
        except RefusedError as error:
            # Capture never loses the fact: what, who and when without the
            # values that the trail does not take.
            self.manager.record_event(_reduced(event, error))
        self._say_lost()

    def _say_lost(self) -> None:
        with self._mu:
            count, self._said = self.lost - self._said, self.lost
        if count:
            try:
                self.manager.record_event({
                    "event_type": "CAPTURE_LOST", "agent_id": self.agent_id, "action": "capture_lost",
                    "success": False, "inputs": {"count": count}, "metadata": self.metadata,
                })  # fmt: skip
            except AuditError:
                self._said -= count

    def _failed(self, error: Exception, count: int) -> None:
        if self.fail_closed:
            raise error
        with self._mu:
            self.lost += count
        # The error names no value of the event.
        log.warning("audit capture: %d not recorded, %d in all: %s", count, self.lost, error)

    def _queue(self, event: dict[str, Any]) -> None:
        with self._mu:
            self._own()
            if self._writer is None:
                self._writer = _Writer(self)
            writer = self._writer
        try:
            writer.queue.put(event, timeout=_MAX_WAIT)
        except queue.Full:
            self._failed(AuditError("the queue is full"), 1)


class _Writer:
    """A thread that records what is queued, what came together as one batch."""

    def __init__(self, capture: Capture) -> None:
        self.capture = weakref.ref(capture)
        self.queue: "queue.Queue[dict[str, Any]]" = queue.Queue(_MAX_QUEUED)
        threading.Thread(target=self._run, name="kaizen-audit capture", daemon=True).start()
        # A daemon thread ends with the process: what is queued goes first.
        atexit.register(_flush_at_exit, weakref.ref(self), os.getpid())

    def _run(self) -> None:
        while True:
            try:
                events = [self.queue.get(timeout=60)]
            except queue.Empty:
                if self.capture() is None:
                    return
                continue
            while len(events) < 500:
                try:
                    events.append(self.queue.get_nowait())
                except queue.Empty:
                    break
            capture = self.capture()
            try:
                if capture is not None:
                    self._record(capture, events)
            except Exception as error:
                capture._failed(error, len(events))
            finally:
                for _ in events:
                    self.queue.task_done()
                del capture

    @staticmethod
    def _record(capture: Capture, events: list[dict[str, Any]]) -> None:
        try:
            capture.manager.record_events(events)
            capture._say_lost()
        except BatchError as batch:
            for event, result in zip(events, batch.results):
                if isinstance(result, RefusedError):
                    try:
                        capture.manager.record_event(_reduced(event, result))
                        continue
                    except AuditError as error:
                        result = error
                if isinstance(result, AuditError):
                    capture._failed(result, 1)

    def flush(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        with self.queue.all_tasks_done:
            while self.queue.unfinished_tasks:
                left = end - time.monotonic()
                if left <= 0:
                    return
                self.queue.all_tasks_done.wait(left)


def _flush_at_exit(writer: "weakref.ref[_Writer]", pid: int) -> None:
    alive = writer()
    if alive is not None and pid == os.getpid():
        alive.flush(10.0)


def _unknown(event: dict[str, Any]) -> dict[str, Any]:
    begun = event.pop("_begun", None)
    if begun is not None:
        event["duration_ms"] = round((time.monotonic() - begun) * 1000, 3)
    return {**event, "success": False, "outcome": "unknown"}


def _reduced(event: dict[str, Any], error: Exception) -> dict[str, Any]:
    # Any member may be the one that was refused, so only what can't be is kept.
    reason = omitted(str(error)[:500])
    duration = event.get("duration_ms")
    return {
        "timestamp": event["timestamp"] if isinstance(event.get("timestamp"), datetime.datetime) else None,
        "event_type": event.get("event_type"),
        "agent_id": str(event.get("agent_id") or "")[:200],
        "trace_id": str(event.get("trace_id") or "")[:200],
        "action": str(event.get("action") or "")[:200],
        "duration_ms": duration if isinstance(duration, (int, float)) and 0 <= duration < 1e15 else 0,
        "success": event.get("success", True) is True,
        "inputs": reason,
        "outputs": reason,
    }


_OUTCOMES = {"CancelledError": "cancelled", "TimeoutError": "timeout", "PermissionError": "denied"}


def failure(error: Any) -> dict[str, Any]:
    """The members of an event whose action ended with an error."""
    if isinstance(error, BaseException):
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return {"success": False, "error": text, "outcome": _OUTCOMES.get(type(error).__name__)}
    return {"success": False, "error": error if isinstance(error, str) else str(error)}

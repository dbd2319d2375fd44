"""The documented manager, on a Client."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import datetime
import json
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union
from urllib.parse import quote, urlencode

from ._client import Client
from ._errors import (
    AuditError,
    BatchError,
    ClosedError,
    ProtocolError,
    RefusedError,
    UnavailableError,
    from_answer,
)
from ._json import decode, encode

DEFAULT_PATH = "/var/log/kaizen-audit.jsonl"
DEFAULT_RETENTION_DAYS = 2555

Time = Union[datetime.datetime, str]

class Receipt(NamedTuple):
    """What recording gives once the event is acknowledged."""

    index: int
    """The entry's position in the trail, from 0."""
    event_id: str
    digest: str
    """SHA-256 over the entry's line, hex."""
    durable: bool = True
    """False in the weaker modes, written and queued."""


class Entry:
    """An event as stored. Every member of the entry is an attribute, and
    ``None`` where the line does not have it; ``data`` is the whole object."""

    __slots__ = ("index", "digest", "line", "data")

    index: int
    digest: str
    line: bytes
    """Exactly as recorded, without its newline."""
    data: dict[str, Any]

    def __init__(self, index: int, digest: str, line: bytes) -> None:
        self.index = index
        self.digest = digest
        self.line = line
        self.data = decode(line.decode("utf-8"))

    @property
    def timestamp(self) -> datetime.datetime:
        """When it happened, in UTC. The text is ``data["timestamp"]``."""
        return _parse_time(self.data["timestamp"])

    @property
    def recorded_at(self) -> datetime.datetime:
        """The trail's clock when the event was accepted."""
        return _parse_time(self.data["recorded_at"])

    event_type: str
    agent_id: str
    trace_id: str
    action: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    duration_ms: float
    success: bool
    error: Optional[str]
    metadata: dict[str, Any]
    event_id: str

    def __getattr__(self, name: str) -> Any:
        if name in _MEMBERS:
            return self.data.get(name)
        raise AttributeError(f"an entry has no {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and (self.index, self.line) == (other.index, other.line)

    def __hash__(self) -> int:
        return hash((self.index, self.line))

    def __repr__(self) -> str:
        # No value of a person's: an entry may end up in a log.
        return f"<Entry {self.index} {self.data.get('event_type')} {self.data.get('event_id')}>"


_MEMBERS = frozenset(
    "event_type agent_id trace_id action inputs outputs duration_ms success error metadata "
    "event_id nonce idempotency_key recorded_by span_id parent_span_id resource outcome "
    "authority purpose policy".split()
)


def _check_key(key: str) -> None:
    """What is no key is an error that does not show it."""
    text = key.strip() if isinstance(key, str) else ""
    raw = b""
    with contextlib.suppress(ValueError):
        if len(text) == 64:
            raw = bytes.fromhex(text)
        else:
            bare = text[:-1] if text.endswith("=") else text
            raw = base64.b64decode(bare.replace("-", "+").replace("_", "/") + "=", validate=True)
    if len(raw) != 32:
        raise ValueError(
            "audit trail manager: encryption_key is not a key: 32 bytes as base64, base64url or "
            "64 hex digits, as openssl rand -base64 32 prints them"
        )


class AuditTrailManager:
    """The documented manager: records events in a trail and reads it.

    It talks to the process that holds the trail, through the socket in the
    trail's directory, and starts ``kaizen-audit serve`` where nobody does.
    Nothing is opened before the first call. It can be used from any thread
    and, after a fork, in parent and children.

    :param audit_log_path: the log, ``/var/log/kaizen-audit.jsonl`` by default.
    :param retention_days: how many days entries are kept at least, after which
        the holder prunes them. 2555 leaves the period that is set; where none
        is, nothing is pruned.
    :param encrypt_at_rest: the trail seals every line, and in it every field
        with a person's data. It counts when the trail is made; one that is
        there and does not is an error.
    :param encryption_key: the trail's key: 32 bytes as base64, base64url or 64
        hex digits, as ``openssl rand -base64 32`` prints them. The holder that
        is started here gets it in its environment, never as an argument; None
        is what that holder finds itself (``AUDIT_LOG_ENCRYPTION_KEY``, a file).
    :param rotation_interval: how often a segment is sealed: ``daily``, which is
        the default, ``weekly``, ``monthly`` or ``never``. Where another process
        holds the trail with another interval or period, a call is an error.
    :param access_control: reading needs a role, which the section ``access`` of
        the holder's configuration gives to users of the system; without one a
        call raises DeniedError. Recording needs none.
    :param allowed_roles: the roles that count; ``auditor``,
        ``compliance_officer`` and ``security_admin`` by default.
    :param backup_to_s3: the holder that is started here archives the trail in
        ``s3_bucket``; one that is there already archives as it was told to.
    :param s3_bucket: a bucket with object lock, with or without a prefix
        (``company-audit-logs/agents``), or an ``s3:`` URL where it is not
        Amazon's. Credentials are those of the usual chain
        (``AWS_ACCESS_KEY_ID``, the shared credentials file), never given here.
    :param durability: ``durable`` (the holder's default: after fdatasync),
        ``written`` or ``queued``.
    :param timeout: seconds that a call may take with all its retries and the
        start of a holder. What is not acknowledged by then is an error.
    """

    def __init__(
        self,
        audit_log_path: "Union[str, os.PathLike[str]]" = DEFAULT_PATH,
        retention_days: int = DEFAULT_RETENTION_DAYS,
        encrypt_at_rest: bool = False,
        encryption_key: Optional[str] = None,
        access_control: bool = False,
        allowed_roles: Optional[Sequence[str]] = None,
        rotation_interval: Optional[str] = None,
        backup_to_s3: bool = False,
        s3_bucket: Optional[str] = None,
        *,
        durability: Optional[str] = None,
        timeout: float = 10.0,
    ) -> None:
        settings: dict[str, Any] = {}
        if allowed_roles and not access_control:
            raise ValueError("audit trail manager: allowed_roles needs access_control")
        if access_control:
            settings["access_control"] = True
        if allowed_roles:
            if isinstance(allowed_roles, str) or any("," in r or not r for r in allowed_roles):
                raise ValueError("audit trail manager: allowed_roles is a list of roles")
            settings["allowed_roles"] = ",".join(allowed_roles)
        if retention_days != DEFAULT_RETENTION_DAYS:
            if not isinstance(retention_days, int) or not 1 <= retention_days <= 100_000:
                raise ValueError("audit trail manager: retention_days is not 1 to 100000")
            settings["retention_days"] = retention_days
        if rotation_interval is not None:
            if rotation_interval not in ("daily", "weekly", "monthly", "never"):
                raise ValueError(
                    "audit trail manager: rotation_interval is daily, weekly, monthly or never"
                )
            settings["rotation_interval"] = rotation_interval
        if backup_to_s3 != bool(s3_bucket):
            raise ValueError("audit trail manager: backup_to_s3 and s3_bucket go together")
        archive = None
        if s3_bucket:
            archive = s3_bucket if s3_bucket.startswith("s3://") else "s3://" + s3_bucket
        if durability not in (None, "durable", "written", "queued"):
            raise ValueError("audit trail manager: durability is durable, written or queued")
        if not timeout > 0:
            raise ValueError("audit trail manager: timeout is not a number of seconds above 0")
        path = os.fspath(audit_log_path)
        if not path:
            raise ValueError("audit trail manager: audit_log_path is empty")
        self.path = path
        if encryption_key is not None:
            _check_key(encryption_key)
        self._client = Client(
            path, timeout, encrypt=encrypt_at_rest, key=encryption_key, archive=archive,
            settings=settings,
        )  # fmt: skip
        self._post = b"/v1/events"
        if durability:
            self._post += b"?durability=" + durability.encode()
        self._closed = False
        self._gather: Optional[_Gather] = None
        # The adapters that record here; close tells them.
        self._captures: weakref.WeakSet[Any] = weakref.WeakSet()

    # Recording.

    def record_event(self, event: Mapping[str, Any]) -> Receipt:
        """Records an event, a dict with the documented names as keys, and
        returns once it is acknowledged.

        Absent: ``timestamp`` is now, ``trace_id`` a new one, ``inputs``,
        ``outputs`` and ``metadata`` ``{}``, ``duration_ms`` 0, ``success``
        True, ``error`` None, and, as the documented samples leave them out,
        ``event_type`` ``UNSPECIFIED``, ``agent_id`` and ``action``
        ``unspecified``.

        :raises RefusedError: the event can't be recorded.
        :raises ConflictError: its idempotency_key was used for another event.
        :raises OutcomeUnknownError: sent, and no answer came in time; it is
            safe to record it again with the error's ``idempotency_key``.
        :raises UnavailableError: not recorded: no holder, disk full.
        """
        key, line = self._line(event)
        result = self._client.post(self._post, [line], "record event")[0]
        if isinstance(result, AuditError):
            raise _with_key(result, key)
        return _receipt(result)

    def record_events(self, events: Iterable[Mapping[str, Any]]) -> list[Receipt]:
        """Records events in order, many at a time, and returns once all are
        acknowledged.

        :raises BatchError: some were not; its ``results`` says which.
        """
        keys, lines = [], []
        for event in events:
            key, line = self._line(event)
            keys.append(key)
            lines.append(line)
        if not lines:
            return []
        results: list[Any] = self._client.post(self._post, lines, "record event")
        failed = False
        for i, result in enumerate(results):
            if isinstance(result, AuditError):
                failed = True
                results[i] = _with_key(result, keys[i])
            else:
                results[i] = _receipt(result)
        if failed:
            raise BatchError(results)
        return results

    def record_phi_access(
        self,
        event: Mapping[str, Any],
        *,
        user_id: str,
        patient_id: str,
        access_reason: str,
        phi_type: str,
    ) -> Receipt:
        """Records an event as the PHI_ACCESS of a user to a patient's record:
        who, whose, why (``treatment``) and what of it (``medical_history``).

        They stand as ``metadata`` ``user_id``, ``access_reason`` and
        ``phi_type``, ``inputs.patient_id`` and ``resource``. All are required:
        what is missing, or stands in the event with another value, is a
        RefusedError that names it.
        """
        what = "record phi access"
        full = _access(what, event, "PHI_ACCESS")
        _say(what, full, "metadata", "user_id", user_id)
        _say(what, full, "metadata", "access_reason", access_reason)
        _say(what, full, "metadata", "phi_type", phi_type)
        _say(what, full, "inputs", "patient_id", patient_id)
        _say(what, full, "resource", "type", "patient")
        _say(what, full, "resource", "id", patient_id)
        return self.record_event(full)

    def record_chd_access(
        self,
        event: Mapping[str, Any],
        *,
        user_id: str,
        pos_terminal: str,
        location: str,
        masked_card: str,
    ) -> Receipt:
        """Records an event as the CHD_ACCESS of a user to cardholder data:
        who, at which terminal, where, and which card, as ``****1234``.

        As record_phi_access; a ``masked_card`` that shows the card's number is
        a RefusedError. The card is the ``resource`` where the event names no
        other, the cardholder say.
        """
        what = "record chd access"
        full = _access(what, event, "CHD_ACCESS")
        _say(what, full, "metadata", "user_id", user_id)
        _say(what, full, "metadata", "pos_terminal", pos_terminal)
        _say(what, full, "metadata", "location", location)
        if isinstance(masked_card, str) and _shows_card(masked_card):
            raise RefusedError(
                f"{what}: inputs.masked_card shows the card's number: of a card eight digits at "
                "the front and four at the end may be stored"
            )
        _say(what, full, "inputs", "masked_card", masked_card)
        if not full.get("resource"):
            full["resource"] = {"type": "card", "id": masked_card}
        return self.record_event(full)

    def pseudonymize(self, user_id: str) -> str:
        """The user's pseudonym in this trail, 64 hex digits, which belongs into
        ``metadata["user_id_hash"]`` in the place of ``metadata["user_id"]``.

        The first time the holder makes it and keeps the id, encrypted, in the
        trail's identity store; from then on it is the same. query_by_user and
        export_user_data find the user's entries in both forms.
        """
        if self._closed:
            raise ClosedError("pseudonymize: the manager is closed")
        if not isinstance(user_id, str):
            raise RefusedError(f"pseudonymize: a user is a str, not {type(user_id).__name__}")
        try:
            body = json.dumps({"user": user_id}, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise RefusedError("pseudonymize: the user is not Unicode text") from None
        answer = _object(self._client.ask("/v1/pseudonyms", "pseudonymize", body), "pseudonymize")
        try:
            return str(answer["user_id_hash"])
        except KeyError:
            raise ProtocolError("pseudonymize: the answer has no pseudonym") from None

    async def arecord_event(self, event: Mapping[str, Any]) -> Receipt:
        """record_event for asyncio: it waits in a thread, never in the loop.

        The event is encoded before this awaits, so it may be changed after.
        Cancelling gives up the wait; the event is recorded all the same.
        """
        key, line = self._line(event)
        gather = self._gather
        # Its threads do not live on in a child of fork.
        if gather is None or gather.pid != os.getpid():
            gather = self._gather = _Gather(self._client, self._post)
        result = await gather.post(line)
        if isinstance(result, AuditError):
            raise _with_key(result, key)
        return _receipt(result)

    def _line(self, event: Mapping[str, Any]) -> tuple[str, bytes]:
        if self._closed:
            raise ClosedError("record event: the manager is closed")
        if not isinstance(event, Mapping):
            raise RefusedError(f"record event: an event is a dict, not {type(event).__name__}")
        full = dict(event)
        key = full.get("idempotency_key")
        if not key:
            key = full["idempotency_key"] = (
                base64.urlsafe_b64encode(os.urandom(16))[:22].decode("ascii")
            )
        at = full.get("timestamp")
        if at is None or at == "":
            full["timestamp"] = _now()
        elif isinstance(at, datetime.datetime):
            # Without a zone it is taken as local time by the trail, which
            # notes that.
            full["timestamp"] = _iso(at) if at.tzinfo else at.isoformat(timespec="milliseconds")
        elif isinstance(at, (int, float)) and not isinstance(at, bool):
            full["timestamp"] = _iso(datetime.datetime.fromtimestamp(at, datetime.timezone.utc))
        for name, value in _UNSPECIFIED:
            if not full.get(name):
                full[name] = value
        return key, encode(full)

    # Reading. Every reading is itself recorded in the trail, by the holder.

    def query(self, **filters: Any) -> Iterator[Entry]:
        """The entries that match every filter, as they come.

        The filters are the flags of ``kaizen-audit query``: ``agent``,
        ``trace``, ``user``, ``subject``, ``session``, ``event_type``, ``action`` (in these
        ``*`` stands for anything), ``success``, ``since``, ``until``,
        ``recorded_since``, ``text``, ``outcome``, ``resource``, ``purpose``,
        ``meta`` (a dict), ``limit``, ``order`` (``newest``) and ``audit`` (the
        trail's own entries too). Times are datetimes or RFC 3339; both ends
        are included.

        :raises AuditError: also while iterating; what came until then is not
            the whole answer.
        """
        if self._closed:
            raise ClosedError("query: the manager is closed")
        return self._query(filters)

    def _query(self, filters: Mapping[str, Any]) -> Iterator[Entry]:
        pairs: list[tuple[str, str]] = []
        for name, value in filters.items():
            if isinstance(value, Mapping):  # meta
                pairs += [(name, f"{k}={v}") for k, v in value.items()]
            elif isinstance(value, (list, tuple, set)):  # event_type
                pairs.append((name, ",".join(map(str, value))))
            elif isinstance(value, bool):
                pairs.append((name, "1" if value else "0"))
            elif isinstance(value, datetime.datetime):
                pairs.append((name, _iso(value)))
            elif value is not None:
                pairs.append((name, str(value)))
        target = "/v1/entries"
        if pairs:
            target += "?" + urlencode(pairs, quote_via=quote)
        for line in self._client.stream(target, "query"):
            if line.startswith(b'{"index":'):
                # The entry is the last member and exactly the line.
                head, found, rest = line.partition(b',"entry":')
                try:
                    place = json.loads(head + b"}")
                    entry = Entry(place["index"], place["digest"], rest[:-1])
                except (ValueError, KeyError, TypeError):
                    raise ProtocolError("query: a row of the answer is not an entry") from None
                yield entry
                continue
            last = _object(line, "query")
            if "error" in last:
                raise from_answer("query", last["error"])
            if "end" in last:
                return
        raise ProtocolError("query: the answer ends early")

    def query_by_agent(self, agent_id: str) -> list[Entry]:
        """The entries of an agent, oldest first."""
        return list(self.query(agent=_id("query by agent", agent_id)))

    def query_by_trace(self, trace_id: str) -> list[Entry]:
        """The entries of a trace, oldest first."""
        return list(self.query(trace=_id("query by trace", trace_id)))

    def query_by_user(self, user_id: str) -> list[Entry]:
        """The entries of a user, under the id or its pseudonym, oldest first."""
        return list(self.query(user=_id("query by user", user_id)))

    def query_by_timerange(self, start: Time, end: Time) -> list[Entry]:
        """The entries whose timestamp lies in the range, both ends included,
        oldest first. A datetime without zone is local time."""
        return list(self.query(since=start, until=end))

    @property
    def audit_entries(self) -> list[Entry]:
        """All entries but the trail's own, oldest first."""
        return list(self.query())

    def export_compliance_report(self) -> str:
        """The documented report as text."""
        return self._get("/v1/report", "export compliance report").decode("utf-8")

    def export_user_data(self, user_id: str) -> str:
        """The entries of a user as a JSON array, exactly as recorded."""
        if not user_id:
            raise ValueError("export user data: the id is empty")
        return self._get("/v1/users/" + quote(user_id, safe=""), "export user data").decode("utf-8")

    def info(self) -> dict[str, Any]:
        """The trail: origin, vkey, path, size, what a checkpoint covers, the
        holder's pid and version."""
        return _object(self._get("/v1/trail", "trail"), "trail")

    def _get(self, target: str, what: str) -> bytes:
        if self._closed:
            raise ClosedError(f"{what}: the manager is closed")
        return self._client.ask(target, what)

    def close(self) -> None:
        """Records what hooks have open as of unknown outcome, and closes the
        connections. The holder goes on, and ends by itself when it is idle."""
        if self._closed:
            return
        for capture in list(self._captures):
            capture.close()
        self._closed = True
        if self._gather is not None and self._gather.pid == os.getpid():
            self._gather.close()
        self._client.close()

    def __enter__(self) -> "AuditTrailManager":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"AuditTrailManager({self.path!r})"


class _Gather:
    """Records for asyncio: what comes while a request is under way shares the
    next one. Two threads, so that one round is made while the other waits."""

    THREADS = 2

    def __init__(self, client: Client, target: bytes) -> None:
        self.pid = os.getpid()
        self._client = client
        self._target = target
        self._threads = concurrent.futures.ThreadPoolExecutor(
            self.THREADS, thread_name_prefix="kaizen-audit"
        )
        self._mu = threading.Lock()
        self._working = 0
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], bytes]] = []

    def post(self, line: bytes) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._mu:
            self._waiting.append((loop, future, line))
            start = self._working < self.THREADS
            self._working += start
        if start:
            self._threads.submit(self._work)
        return future

    def _work(self) -> None:
        while True:
            with self._mu:
                batch, self._waiting = self._waiting[:1000], self._waiting[1000:]
                if not batch:
                    self._working -= 1
                    return
            try:
                results = self._client.post(self._target, [line for _, _, line in batch], "record event")
            except Exception as error:
                results = [error] * len(batch)
            by_loop: dict[Any, list[tuple[asyncio.Future[Any], Any]]] = {}
            for (loop, future, _), result in zip(batch, results):
                by_loop.setdefault(loop, []).append((future, result))
            for loop, pairs in by_loop.items():
                try:
                    loop.call_soon_threadsafe(_resolve, pairs)
                except RuntimeError:
                    pass  # the loop was closed: nobody waits for these

    def close(self) -> None:
        self._threads.shutdown(wait=True)


def _resolve(pairs: "list[tuple[asyncio.Future[Any], Any]]") -> None:
    for future, result in pairs:
        if future.done():  # cancelled: nobody waits for it
            continue
        if isinstance(result, AuditError) or not isinstance(result, BaseException):
            future.set_result(result)
        else:
            future.set_exception(result)


def _with_key(error: AuditError, key: str) -> AuditError:
    """The error of one event: that of a request stands for all its events."""
    error = type(error)(str(error), error.code)
    if isinstance(error, UnavailableError):
        error.idempotency_key = key
    return error


def _access(what: str, event: Mapping[str, Any], event_type: str) -> dict[str, Any]:
    if not isinstance(event, Mapping):
        raise RefusedError(f"{what}: an event is a dict, not {type(event).__name__}")
    full = dict(event)
    if full.setdefault("event_type", event_type) != event_type:
        raise RefusedError(f"{what}: event_type is another than {event_type}")
    for name in ("metadata", "inputs", "resource"):
        value = full.get(name) or {}
        if not isinstance(value, Mapping):
            raise RefusedError(f"{what}: {name} is not a dict")
        if value or name != "resource":
            full[name] = dict(value)
    return full


def _say(what: str, event: dict[str, Any], place: str, name: str, text: Any) -> None:
    """Puts into an event what an access must say."""
    if not isinstance(text, str) or not text.strip():
        raise RefusedError(f"{what}: {place}.{name} is missing, and an access must say it")
    if event.setdefault(place, {}).setdefault(name, text) != text:
        raise RefusedError(f"{what}: {place}.{name} stands in the event with another value")


def _shows_card(text: str) -> bool:
    """Whether more of a card's number is there than may be stored: eight digits
    before something is left out, twelve in all."""
    run = count = 0
    for char in text:
        if char.isdigit():
            run, count = run + 1, count + 1
        elif char in "*xX#\u2022\u2026":
            run = 0
        if run > 8 or count > 12:
            return True
    return False


_UNSPECIFIED = (
    ("event_type", "UNSPECIFIED"),
    ("agent_id", "unspecified"),
    ("action", "unspecified"),
)


def _id(what: str, text: str) -> str:
    """text as a filter that matches itself. Empty must not mean everybody."""
    if not text:
        raise ValueError(f"{what}: the id is empty")
    return text.replace("*", r"\*")


def _receipt(answer: Any) -> Receipt:
    try:
        return Receipt(
            answer["index"], answer["event_id"], answer["digest"], answer.get("durable", True)
        )
    except (KeyError, TypeError, AttributeError):
        raise ProtocolError("record event: the answer is not a receipt") from None


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ProtocolError(f"{what}: the holder's answer is not a JSON object")
    return value


def _now() -> str:
    return _iso(datetime.datetime.now(datetime.timezone.utc))


def _iso(at: datetime.datetime) -> str:
    """RFC 3339, UTC. Without a zone it is this process's local time."""
    return at.astimezone(datetime.timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"


def _parse_time(text: str) -> datetime.datetime:
    # fromisoformat knows Z only from Python 3.11 on.
    return datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)

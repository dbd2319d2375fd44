"""The client's end of the holder's socket: HTTP/1.1 over a Unix stream socket,
protocol 1. It knows requests and answers, connections, forks, and how to
start a holder; it does not know what an event or an entry is.

A connection is used by one thread at a time and goes back to a pool, so there
are as many as calls were under way at once. The standard http.client takes
several times as long for a small exchange (bench.py), hence the few lines of
HTTP here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from json import loads
from typing import Any, Optional

from ._errors import (
    AuditError,
    HolderError,
    OutcomeUnknownError,
    ProtocolError,
    UnavailableError,
    from_answer,
)

PROTOCOL = b"1"

# IDLE_EXIT is how long a holder that we started stays after the last request.
IDLE_EXIT = "60s"

# A head longer than this is none of ours.
_MAX_HEAD = 64 << 10

# The longest path of a socket's address: sun_path, with its zero byte, is 108
# bytes on Linux and 104 on macOS.
_MAX_SUN_PATH = 107 if sys.platform == "linux" else 103


class Broken(Exception):
    """The connection ended or spoke nonsense in the middle of an exchange.

    ``answered`` says whether any of the answer had come.
    """

    def __init__(self, message: str, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class AnswerError(Exception):
    """The request as a whole was answered with an error: the body."""


class Response:
    """An answer whose body is still to be read."""

    __slots__ = ("status", "chunked", "left", "conn", "keep")

    def __init__(self, conn: "Connection", head: bytes) -> None:
        lines = head.split(b"\r\n")
        try:
            version, status = lines[0].split(b" ", 2)[:2]
            self.status = int(status)
            if not version.startswith(b"HTTP/1."):
                raise ValueError
        except ValueError:
            raise Broken("the answer is not HTTP/1.1") from None
        self.conn = conn
        self.chunked = False
        self.left: Optional[int] = None
        self.keep = True
        spoken = None
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            name, value = name.lower(), value.strip()
            if name == b"content-length":
                self.left = int(value) if value.isdigit() else None
            elif name == b"transfer-encoding":
                self.chunked = value.lower() == b"chunked"
            elif name == b"connection" and value.lower() == b"close":
                self.keep = False
            elif name == b"kaizen-audit-protocol":
                spoken = value
        if spoken is None:
            raise ProtocolError("the socket is not a kaizen-audit holder's")
        if spoken != PROTOCOL and self.status < 400:
            raise ProtocolError(
                f"the holder speaks protocol {spoken.decode(errors='replace')}, this client 1"
            )

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes."""
        conn = self.conn
        if not self.chunked:
            if self.left is None:
                raise Broken("the answer has no length", True)
            while self.left:
                piece = conn.some(self.left)
                self.left -= len(piece)
                yield piece
        else:
            while True:
                try:
                    size = int(conn.line().split(b";")[0], 16)
                except ValueError:
                    raise Broken("a chunk of the answer has no size", True) from None
                if size == 0:
                    while conn.line():
                        pass
                    break
                while size:
                    piece = conn.some(size)
                    size -= len(piece)
                    yield piece
                if conn.line():
                    raise Broken("a chunk of the answer has no end", True)
        if not self.keep:
            conn.close()

    def lines(self) -> Iterator[bytes]:
        """The body's lines without their newlines."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n") if rest else piece.split(b"\n")
            yield from whole
        if rest:
            yield rest

    def body(self) -> bytes:
        return b"".join(self.pieces())


class Connection:
    """A socket to a holder, and what was read ahead."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        # The answers of the request that this connection is for, once begun.
        self.answers: Optional[Iterator[bytes]] = None

    def close(self) -> None:
        self.sock.close()

    # A manager that nobody closed leaves nothing behind.
    __del__ = close

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0

    def _more(self) -> bytes:
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            raise Broken(f"read: {_cause(error)}", True) from None
        if not data:
            raise Broken("the holder closed the connection", True)
        return data

    def some(self, limit: int) -> bytes:
        """At least one byte and at most limit."""
        data = self.buffer or self._more()
        self.buffer = data[limit:]
        return data[:limit]

    def line(self) -> bytes:
        data = self.buffer
        while b"\n" not in data:
            if len(data) > _MAX_HEAD:
                raise Broken("a line of the answer has no end", True)
            data += self._more()
        line, _, self.buffer = data.partition(b"\n")
        return line.rstrip(b"\r")

    def request(self, method: bytes, target: bytes, body: bytes = b"") -> Response:
        """Sends a request with a small body and reads the head of its answer."""
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        self._send(b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n%b" % (method, target, length, body))
        return self._head()

    def exchange(self, target: bytes, lines: list[bytes]) -> Iterator[bytes]:
        """Sends lines and gives an answer line for each.

        All lines of a connection are the chunks of one request, whose answer
        goes on as long as the connection: twice as fast as a request for
        each (bench.py). An answer with another status ends it: then the body
        is in an AnswerError.
        """
        body = b"\n".join(lines)
        chunk = b"%x\r\n%b\n\r\n" % (len(body) + 1, body)
        if self.answers is None:
            head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            self._send(head % target + chunk)
            response = self._head()
            if response.status != 200:
                raise AnswerError(response.body())
            self.answers = response.lines()
        else:
            self._send(chunk)
        for _ in lines:
            line = next(self.answers, None)
            if line is None:
                raise Broken("the holder ended the answer", True)
            yield line

    def _send(self, data: bytes) -> None:
        try:
            if len(data) <= 65536:
                # Less than any socket's buffer: it can't wait for us to read.
                self.sock.sendall(data)
            else:
                self._send_and_read(data)
        except OSError as error:
            # What the holder said before it closed may be there: why it did.
            try:
                self.buffer += self._more()
            except Broken:
                raise Broken(f"write: {_cause(error)}") from None

    def _head(self) -> Response:
        data = self.buffer
        while True:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                self.buffer = data[end + 4 :]
                return Response(self, data[:end])
            if len(data) > _MAX_HEAD:
                raise Broken("the head of the answer has no end", True)
            try:
                data += self._more()
            except Broken as error:
                error.answered = bool(data)
                raise

    def _send_and_read(self, data: bytes) -> None:
        """Sends what is more than a socket's buffer while it reads: a holder
        answers before it has the whole."""
        view, got = memoryview(data), []
        timeout = self.sock.gettimeout()
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | select.POLLOUT)
        self.sock.setblocking(False)
        try:
            while view:
                ready = poll.poll(None if timeout is None else timeout * 1000)
                if not ready:
                    raise socket.timeout("timed out")
                if ready[0][1] & ~select.POLLOUT:
                    piece = self.sock.recv(65536)
                    if not piece:
                        break  # it has said all that it will: what came is the answer
                    got.append(piece)
                if ready[0][1] & select.POLLOUT:
                    with contextlib.suppress(BlockingIOError):
                        view = view[self.sock.send(view) :]
        finally:
            self.sock.settimeout(timeout)
            self.buffer += b"".join(got)


class Client:
    """Exchanges with whoever holds a trail, which may change."""

    def __init__(
        self,
        log: str,
        timeout: float,
        binary: Optional[str] = None,
        encrypt: bool = False,
        archive: Optional[str] = None,
        key: Optional[str] = None,
        settings: Optional[Mapping[str, Any]] = None,
    ) -> None:
        # As the trail's own rule: links of the log are followed, then
        # X.jsonl has its directory at X.trail, any other X at X.trail.
        self.log = os.path.realpath(log)
        base = self.log
        if base.endswith(".jsonl") and os.path.basename(base) != ".jsonl":
            base = base[: -len(".jsonl")]
        self.directory = base + ".trail"
        self.timeout = timeout
        self.binary = binary
        self.encrypt = encrypt
        # By the names that they have in the holder's answers and as its flags.
        self.settings = dict(settings or {})
        self.archive = archive
        # In a closure: no repr and no pickle of this shows it.
        self._key = (lambda: key) if key is not None else None
        # Connections for requests, and those that are a stream of events.
        self.idle: list[Connection] = []
        self.streams: list[Connection] = []
        # All connections, also those in use: a child of fork closes its copies.
        self.open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self.starting = threading.Lock()
        self.process: "Optional[subprocess.Popen[bytes]]" = None
        _clients.add(self)

    @contextlib.contextmanager
    def connection(self, pool: list[Connection], deadline: float) -> Iterator[Connection]:
        """A connection for one exchange; after an error it is not used again."""
        try:
            conn = pool.pop()
        except IndexError:
            conn = self.connect(deadline)
        whole = False
        try:
            # A holder that does not answer must not hang its callers.
            conn.sock.settimeout(max(0.001, deadline - time.monotonic()))
            yield conn
            # The end of a stream's last chunk may be there or still come.
            whole = not conn.closed and conn.buffer in (_NO_MORE if conn.answers is None else _CHUNK_END)
        finally:
            if whole:
                pool.append(conn)
            else:
                conn.close()

    def close(self) -> None:
        for pool in (self.idle, self.streams):
            while pool:
                pool.pop().close()

    def connect(self, deadline: float) -> Connection:
        """Connects to the holder, and starts one where there is none."""
        wait, ours, code, spawns, spawn_at = 0.001, None, 0, 0, 0.0
        with _Turn(self.directory) as turn:
            while True:
                try:
                    conn = Connection(_dial(self.directory, deadline))
                except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
                    # Nobody listens. A holder that we started and that ended
                    # lost the race to another, whose socket is there in a
                    # moment, or it can't hold the trail: a few starts tell.
                    if ours is not None and ours.poll() is not None:
                        code, spawn_at = ours.returncode, time.monotonic() + 0.02 * 2**spawns
                        ours = None
                    if ours is None and time.monotonic() >= spawn_at and turn.is_ours():
                        if spawns == _MAX_SPAWNS:
                            raise HolderError(
                                f"start a holder of {self.log}: serve ended with exit code {code} and "
                                f"nobody else answers: `kaizen-audit serve --log {self.log}` says why"
                            ) from None
                        ours = self._start()
                        spawns += 1
                except BlockingIOError:
                    pass  # it is there, and its queue of connections is full
                except OSError as error:
                    raise HolderError(f"connect to the holder of {self.log}: {_cause(error)}") from None
                else:
                    self.open.add(conn)
                    try:
                        self._must_seal()
                        self._must_match(conn, deadline)
                    except HolderError:
                        conn.close()
                        raise
                    return conn
                left = deadline - time.monotonic()
                if left <= 0:
                    raise HolderError(
                        f"connect to the holder of {self.log}: no answer within {self.timeout:g} s"
                    )
                time.sleep(min(wait, left))
                wait = min(wait * 1.5, 0.01)

    def _must_seal(self) -> None:
        """Who wants an encrypted trail is told where the holder's is none."""
        if not self.encrypt:
            return
        try:
            with open(os.path.join(self.directory, "trail.json"), "rb") as file:
                seals = loads(file.read(1 << 20)).get("encrypt", False)
        except (OSError, ValueError, AttributeError) as error:
            raise HolderError(
                f"{self.log}: whether the trail is encrypted can't be told: {type(error).__name__}"
            ) from None
        if seals is not True:
            raise HolderError(
                f"{self.log}: option encrypt_at_rest: the trail does not seal its lines, and that is "
                "chosen when one is made"
            )

    def _must_match(self, conn: Connection, deadline: float) -> None:
        """What was asked for is what the holder does, whoever started it."""
        if not self.settings:
            return
        conn.sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            response = conn.request(b"GET", b"/v1/trail")
            says = loads(response.body())
        except (Broken, ValueError) as error:
            raise HolderError(f"{self.log}: what its holder does can't be told: {error}") from None
        for option, wanted in self.settings.items():
            there = says.get(option)
            if there != wanted:
                raise HolderError(
                    f"{self.log}: option {option}: the process that holds the trail has "
                    f"{there or 'none'}, not {wanted}"
                )

    def _environment(self) -> "Optional[dict[str, str]]":
        """The environment of a holder: the key is there, and in no argument."""
        if self._key is None:
            return None
        env = dict(os.environ, AUDIT_LOG_ENCRYPTION_KEY=self._key())
        for other in ("KAIZEN_AUDIT_KEY_FILE", "KAIZEN_AUDIT_KEY_URL"):  # it counts alone
            env.pop(other, None)
        return env

    def _start(self) -> "subprocess.Popen[bytes]":
        """Starts a holder that outlives us, unless one of this process's is
        still there. Of several processes' holders one gets the trail's lock,
        the others end."""
        with self.starting:
            if self.process is not None and self.process.poll() is None:
                return self.process
            name = self.binary or os.environ.get("KAIZEN_AUDIT_BIN") or "kaizen-audit"
            path = shutil.which(name)
            if path is None:
                raise HolderError(
                    f"start a holder of {self.log}: {name}: no such program: install kaizen-audit "
                    "on PATH or name it in KAIZEN_AUDIT_BIN"
                )
            try:
                self.process = subprocess.Popen(
                    [os.path.abspath(path), "serve", "--log", self.log, "--idle-exit", IDLE_EXIT]
                    + (["--encrypt"] if self.encrypt else [])
                    + [
                        f"--{option.replace('_', '-')}={value}"
                        for option, value in self.settings.items()
                    ]
                    + (["--archive-to", self.archive] if self.archive else []),
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    start_new_session=True, cwd="/", env=self._environment(),
                )  # fmt: skip
            except OSError as error:
                raise HolderError(f"start a holder of {self.log}: {_cause(error)}") from None
            # Somebody must wait for it, or it stays as a zombie. When the
            # interpreter is ending there are no new threads, nor zombies.
            with contextlib.suppress(RuntimeError):
                threading.Thread(
                    target=self.process.wait, name="kaizen-audit holder", daemon=True
                ).start()
            return self.process

    def post(self, target: bytes, lines: list[bytes], what: str) -> list[Any]:
        """Sends lines and gives, for each in order, what the holder's answer
        line says, or an AuditError. What was not answered is sent again, to
        the next holder where one is gone, until the timeout: every line must
        have a key that makes that safe."""
        deadline = time.monotonic() + self.timeout
        results: list[Any] = [None] * len(lines)
        todo = list(range(len(lines)))
        sent, tries = False, 0
        while True:
            now = _batch(todo, lines)
            last: AuditError = ProtocolError(f"{what}: the holder's answer ends early")
            try:
                with self.connection(self.streams, deadline) as conn:
                    sent = True
                    self._post(conn, target, lines, now, results, what)
            except Broken as error:
                last = OutcomeUnknownError(f"{what}: {error}")
            except HolderError as error:
                last, tries = error, _MAX_TRIES
                if sent:
                    last = OutcomeUnknownError(f"{what}: sent, and then: {error}")
            left = [i for i in todo if results[i] is None or _again(results[i])]
            if not left:
                return results
            tries = 0 if len(left) < len(todo) else tries + 1
            todo = left
            last = results[todo[0]] or last
            # A full disk is not waited for long: its error is the answer.
            bound = _MAX_FULL if last.code == "full" else _MAX_TRIES
            if tries >= bound or time.monotonic() >= deadline:
                for i in todo:
                    results[i] = results[i] or last
                return results
            if tries:
                time.sleep(min(0.001 * 2 ** min(tries, 6), max(0.0, deadline - time.monotonic())))

    @staticmethod
    def _post(
        conn: Connection, target: bytes, lines: list[bytes], now: list[int],
        results: list[Any], what: str,
    ) -> None:  # fmt: skip
        """One exchange: fills the results of the lines that were answered."""
        at = 0
        try:
            for line in conn.exchange(target, [lines[i] for i in now]):
                answer = loads(line)
                results[now[at]] = from_answer(what, answer["error"]) if "error" in answer else answer
                at += 1
        except AnswerError as error:
            for i in now[at:]:
                results[i] = answer_error(what, error.args[0])
        except (ValueError, TypeError):
            raise ProtocolError(f"{what}: an answer that is none to an event") from None

    def ask(self, target: str, what: str, body: Optional[bytes] = None) -> bytes:
        """The answer to a GET, or to a POST of a body that may be sent twice;
        asked again where no answer began."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                with self.connection(self.idle, deadline) as conn:
                    if body is None:
                        response = conn.request(b"GET", target.encode("ascii"))
                    else:
                        response = conn.request(b"POST", target.encode("ascii"), body)
                    answer = response.body()
            except Broken as error:
                if error.answered or time.monotonic() >= deadline:
                    raise UnavailableError(f"{what}: {error}") from None
                time.sleep(0.002)
                continue
            if response.status == 200:
                return answer
            error_ = answer_error(what, answer)
            if error_.code not in RETRIED or time.monotonic() >= deadline:
                raise error_
            time.sleep(0.01)

    def stream(self, target: str, what: str) -> Iterator[bytes]:
        """The lines of a GET. One that is left early costs its connection."""
        deadline = time.monotonic() + self.timeout
        while True:
            begun = False
            try:
                with self.connection(self.idle, deadline) as conn:
                    response = conn.request(b"GET", target.encode("ascii"))
                    if response.status == 200:
                        conn.sock.settimeout(self.timeout)
                        for line in response.lines():
                            begun = True
                            yield line
                        return
                    body = response.body()
            except Broken as error:
                if begun or error.answered or time.monotonic() >= deadline:
                    raise UnavailableError(f"{what}: {error}") from None
                time.sleep(0.002)
                continue
            error_ = answer_error(what, body)
            if error_.code not in RETRIED or time.monotonic() >= deadline:
                raise error_
            time.sleep(0.01)


# A start that fails because another holder has the lock is tried again; one
# that fails for a reason of its own fails as often.
_MAX_SPAWNS = 6

# After so many failures in a row, with waits from 2 ms to 64 ms, somebody must
# look; the timeout may end it before.
_MAX_TRIES = 500
_MAX_FULL = 4

_NO_MORE = (b"",)
_CHUNK_END = (b"", b"\r\n", b"\n")

# RETRIED are the codes after which the same request may be sent again.
RETRIED = frozenset(("closed", "stopped", "busy", "full", "unknown"))


def _again(result: Any) -> bool:
    return isinstance(result, AuditError) and result.code in RETRIED


def _batch(todo: list[int], lines: list[bytes]) -> list[int]:
    """As many as one request takes: the protocol's 1,000 events and 2 MiB."""
    size = 0
    for n, i in enumerate(todo):
        size += len(lines[i]) + 1
        if n == 1000 or n and size > 2 << 20:
            return todo[:n]
    return todo


class _Turn:
    """Whose turn it is to start a holder, of the processes that miss one: two
    cores start one program sooner than eight. It is a lock of the trail's
    directory, and only a courtesy: where there is none, all may start one.
    """

    # Somebody whose program hangs must not keep the others from starting one.
    PATIENCE = 1.0

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.fd = -1
        self.since = 0.0

    def is_ours(self) -> bool:
        if self.fd >= 0:
            return True
        self.since = self.since or time.monotonic()
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True  # no directory yet
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return time.monotonic() > self.since + self.PATIENCE
        except OSError:
            os.close(fd)
            return True
        self.fd = fd
        return True

    def __enter__(self) -> "_Turn":
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def answer_error(what: str, body: bytes) -> AuditError:
    try:
        error = loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return ProtocolError(f"{what}: the holder's answer is no error and no success")
    return from_answer(what, error)


def _dial(directory: str, deadline: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not inherited by programs that we start (PEP 446), and no wait
        # without end in any call.
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        path = os.path.join(directory, "sock")
        if len(os.fsencode(path)) <= _MAX_SUN_PATH:
            sock.connect(path)
        elif sys.platform == "linux":
            fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.connect(f"/proc/self/fd/{fd}/sock")
            finally:
                os.close(fd)
        else:
            raise HolderError(
                f"connect to the holder of {directory}: the path of its socket is longer than "
                f"{_MAX_SUN_PATH} bytes, which this system does not take: use a shorter path"
            )
        _check_holder(sock, directory)
    except BaseException:
        sock.close()
        raise
    return sock


def _check_holder(sock: socket.socket, directory: str) -> None:
    """Refuses a socket that somebody else has put there: who listens must be
    the directory's owner, this user or root, as the kernel says."""
    if sys.platform == "linux":
        # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED).
        uid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    elif sys.platform == "darwin":
        # struct xucred: version, uid, groups (unix(4)); SOL_LOCAL is 0 and
        # LOCAL_PEERCRED 1.
        uid = struct.unpack_from("II", sock.getsockopt(0, 1, 76))[1]
    else:
        return
    owner = os.stat(directory).st_uid
    if uid not in (0, owner, os.geteuid()):
        raise HolderError(
            f"connect to the holder of {directory}: user {uid} listens there, "
            f"and the directory belongs to user {owner}"
        )


def _cause(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A connection belongs to the process that made it: two would mix their
    requests. The child closes its copies, which does not end the parent's."""
    for client in list(_clients):
        client.idle, client.streams = [], []
        client.starting = threading.Lock()
        client.process = None
        for conn in list(client.open):
            conn.sock.close()
        client.open = weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

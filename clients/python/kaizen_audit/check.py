#!/usr/bin/env python3
"""Checks what came out of a kaizen-audit trail, without kaizen-audit.

    python3 verify.py                                the export in this folder
    python3 verify.py export.zip --key VKEY          an export, still zipped
    python3 verify.py proof.json --key VKEY --show   one disclosure (of "disclose")

It needs Python 3.9 and nothing else: no package, no network, no program of ours.
It was written from the published format (docs/format.md, docs/format-sealing.md
of kaizen-audit) and is one file, so that you can read all of it.

What it proves, for each entry that is marked "proved":

  1. The line hashes to a leaf of the trail's Merkle tree (RFC 6962), at the index
     that is given.
  2. The tree's root is signed with the trail's key (Ed25519, RFC 8032).
  3. Fields that were sealed in that line open with the keys that were given to
     you, and with no others: a second key for the same sealed field can't be made.
  4. What entries.json shows you is exactly that line.

It does not prove that you were given every entry that concerns you, and says
nothing of entries that are marked "masked": those hold data of other people that
was not sealed, and came without digest and proof on purpose.

--key VKEY is the trail's verifier key, from somewhere you trust: the owner's web
site, an earlier export, your lawyer. Without it the key is taken from the export
itself, which then is consistent with itself only.

The exit code is 0 when all is as it should be, 1 when it is not, 2 for a wrong
command line. The ciphers here are small and slow, and not made for secrets that
an attacker could measure: good enough to open what was given to you.
"""
import argparse
import base64
import csv
import hashlib
import hmac
import io
import json
import os
import re
import sys
import zipfile
import zlib


class Malformed(Exception):
    pass


class Version(Exception):
    pass


class Open(Exception):
    pass


class TooLarge(Exception):
    pass


# --- AES-256 in counter mode (FIPS 197, SP 800-38A) ---


def xtime(a):
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def make_sbox():
    exp, log, x = [0] * 256, [0] * 256, 1
    for i in range(255):
        exp[i], log[x] = x, i
        x ^= xtime(x)  # times 3, a generator
    box = []
    for a in range(256):
        b = exp[(255 - log[a]) % 255] if a else 0
        s = 0x63
        for i in range(5):
            s ^= ((b << i) | (b >> (8 - i))) & 0xFF
        box.append(s)
    return box


SBOX = make_sbox()


def expand_key(key):
    words, rcon = [list(key[i:i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        w = list(words[-1])
        if i % 8 == 0:
            w = [SBOX[b] for b in w[1:] + w[:1]]
            w[0] ^= rcon
            rcon = xtime(rcon)
        elif i % 8 == 4:
            w = [SBOX[b] for b in w]
        words.append([a ^ b for a, b in zip(words[i - 8], w)])
    return [sum(words[i:i + 4], []) for i in range(0, 60, 4)]


def encrypt_block(keys, block):
    s = [a ^ b for a, b in zip(block, keys[0])]
    for n in range(1, 15):
        s = [SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if n < 14:
            out = []
            for c in range(0, 16, 4):
                col = s[c:c + 4]
                every = col[0] ^ col[1] ^ col[2] ^ col[3]
                out += [col[i] ^ every ^ xtime(col[i] ^ col[(i + 1) % 4]) for i in range(4)]
            s = out
        s = [a ^ b for a, b in zip(s, keys[n])]
    return bytes(s)


def ctr(key, first, data):
    keys, count, out = expand_key(key), int.from_bytes(first, "big"), bytearray()
    for at in range(0, len(data), 16):
        stream = encrypt_block(keys, ((count + at // 16) % (1 << 128)).to_bytes(16, "big"))
        out += bytes(a ^ b for a, b in zip(data[at:at + 16], stream))
    return bytes(out)


# --- Ed25519 (RFC 8032 §5.1.7), verification only ---

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def ed_add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def ed_mul(n, p):
    q = (0, 1, 1, 0)
    while n:
        if n & 1:
            q = ed_add(q, p)
        p, n = ed_add(p, p), n >> 1
    return q


def ed_point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - xx) % P or (not x and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def ed_verify(public, message, signature):
    a, r, s = ed_point(public), ed_point(signature[:32]), int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or not a or not r or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    base = ed_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    x, y = ed_mul(s, base), ed_add(r, ed_mul(h, a))
    return (x[0] * y[2] - y[0] * x[2]) % P == 0 and (x[1] * y[2] - y[1] * x[2]) % P == 0


# --- docs/format-sealing.md §6.1 to §6.5: sealed fields and lines ---

# Dictionary 1 of §6.2: what the compressor has seen before a value begins.
DICTIONARY = (
    '"stack_trace":"status_code":"response_format":"max_tokens":"temperature":"top_p":"stop_reason":"'
    'finish_reason":"prompt_tokens":"completion_tokens":"total_tokens":"input_tokens":"output_tokens"'
    ':"cost_usd":"retries":"attempt":"timeout_ms":"chunk_id":"documents":"embedding":"score":"rank":"'
    'limit":"offset":"page":"total":"count":"currency":"amount":"price":"balance":"payment_id":"order'
    '_id":"customer_id":"product_id":"item_ids":"address":"city":"state":"country":"zip":"phone":"fir'
    'st_name":"last_name":"full_name":"date_of_birth":"gender":"email":"description":"title":"subject'
    '":"body":"text":"summary":"label":"category":"priority":"reason":"result":"results":"data":"item'
    's":"list":"value":"values":"type":"id":"name":"key":"url":"method":"headers":"params":"path":"fi'
    'le":"filename":"line":"command":"exit_code":"stdout":"stderr":"code":"language":"version":"model'
    '":"provider":false,true,null,"ok","error","failed","success","pending","completed","cancelled","'
    'denied","confirmed","unknown","timeout"{"role":"system","content":"You are {"role":"tool","name"'
    ':"","tool_call_id":"call_{"id":"call_","type":"function","function":{"name":"","arguments":"{\\"\\'
    '":\\"\\",\\"\\n"}}],"tool_calls":[{"function_call":null,"refusal":null,"usage":{"prompt_tokens":{"me'
    'ssages":[{"role":"user","content":"{"content":"","role":"assistant"}{"query":"{"value":"{"error"'
    ':"{"message":"{"status":"ok","result":"{"arguments":{"{"response":"{"prompt":"{"omitted":"","byt'
    'es":,"mac":" the  and  to  of  you  your  is  for  in  a  that  with  this  on  it  I Error: not'
    ' found invalid request permission denied connection refused timed out https://http://www..com@ex'
    'ample.com2024-2025-2026-T00:00:00.000Z"authority":{"rule":"","approver":"","method":"","policy":'
    '"","on_behalf_of":["outcome":"denied","outcome":"cancelled","outcome":"timeout","outcome":"unkno'
    'wn","purpose":"","resource":{"type":"patient","id":"","span_id":"","parent_span_id":"","recorded'
    '_by":{"principal":"uid:1000","pid":,"via":"socket"},"via":"import","via":"otlp","via":"spool","i'
    'dempotency_key":""policy":{"zone_assumed":["/timestamp"],"masked":["/inputs/"],"dropped":["/outp'
    'uts/"],"sealed":["/inputs","/outputs","/error","/resource/id","/metadata/session_id","/metadata/'
    'ip_address","/metadata/user_agent","/metadata/user_id"]}}sealed:v1:"event_type":"CONFIG_CHANGE",'
    '"event_type":"DATA_ACCESS","event_type":"CHD_ACCESS","event_type":"PHI_ACCESS","event_type":"INT'
    'ERRUPT","event_type":"CHECKPOINT_SAVE","event_type":"PLAN_GENERATION","event_type":"SPECIALIST_I'
    'NVOKE","event_type":"PERMISSION_CHECK","event_type":"MEMORY_DELETE","event_type":"MEMORY_SAVE","'
    'event_type":"MEMORY_LOAD","event_type":"AGENT_LOOP_END","event_type":"AGENT_LOOP_START","event_t'
    'ype":"LLM_CALL","event_type":"TOOL_USE","action":"patient_record_read","action":"permission_chec'
    'k:","action":"memory_save","action":"memory_load","action":"agent_execution_end","action":"agent'
    '_execution_start","action":"llm_call:gpt-4claude-"user_agent":"Mozilla/5.0 (","environment":"pro'
    'duction","service_name":"","imported_from":"","ip_address":"10.0.0.192.168.1.","metadata":{"user'
    '_id":"","session_id":"{"timestamp":"2026-01-01T00:00:00.000Z","event_type":"TOOL_USE","agent_id"'
    ':"agent-","trace_id":"","action":"tool_use:","inputs":{},"outputs":{"result":"},"duration_ms":0,'
    '"success":false,"error":"","success":true,"error":null,"metadata":{"user_id":"","session_id":"",'
    '"ip_address":"},"event_id":"019-7-8-9-a-b","recorded_at":"2026-'
).encode()


def mac256(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def expand(prk, info, size):
    out, t, i = b"", b"", 1
    while len(out) < size:
        t = mac256(prk, t + info + bytes([i]))
        out, i = out + t, i + 1
    return out[:size]


def hkdf(secret, salt, info):
    return expand(mac256(salt, secret), info, 32)


def lp(*parts):
    parts = [p.encode() if isinstance(p, str) else p for p in parts]
    return b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def padded(n):
    unit = max(16, (1 << (n.bit_length() - 1)) // 16)
    return (n + unit - 1) // unit * unit


def base64url(text):
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise Malformed("alphabet")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise Malformed("base64url")
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise Malformed("bits to spare")
    return data


def check_box(box):
    n = len(box) - 32
    if n <= 0 or padded(n) != n:
        raise Malformed("box size")


def box_keys(key):
    both = expand(key, b"kaizen-audit/box/v1", 64)
    return both[:32], both[32:]


def seal_body(key, info, body):
    enc, mac = box_keys(key)
    tag = mac256(mac, lp(info) + body)
    return tag + ctr(enc, tag[:16], body)


def body_of(key, info, box):
    enc, mac = box_keys(key)
    tag, body = box[:32], ctr(enc, box[:16], box[32:])
    if not hmac.compare_digest(tag, mac256(mac, lp(info) + body)):
        raise Open()
    return body


def one_text(data):
    """One JSON text without line ends."""
    if b"\n" in data:
        raise Malformed("line end")
    try:
        text = data.decode()
        json.loads(text)
    except ValueError:
        raise Malformed("not JSON")
    return text


def open_box(key, info, box, limit):
    check_box(box)
    body = body_of(key, info, box)
    data = body.rstrip(b"\0")
    if not data or padded(len(data)) != len(body):
        raise Malformed("padding")
    data, method = data[:-1], data[-1]
    if method == 1:
        out = data
    elif method == 2:
        d = zlib.decompressobj(-15, DICTIONARY)
        try:
            out = d.decompress(data, limit + 1)
        except zlib.error:
            raise Malformed("deflate")
        if len(out) <= limit and (not d.eof or d.unused_data):
            raise Malformed("deflate end")
    else:
        raise Malformed("method")
    if len(out) > limit:
        raise TooLarge()
    return out


def parse_envelope(text):
    parts = text.split(":")
    if parts[0] != "sealed" or len(parts) < 3:
        raise Malformed("prefix")
    if parts[1] != "v1":
        raise Version()
    if len(parts) != 4:
        raise Malformed("parts")
    handles = parts[2].split(".")
    for h in handles:
        if not re.fullmatch(r"[A-Za-z0-9_-]{12}", h):
            raise Malformed("handle")
    if handles != sorted(set(handles)) or len(handles) > 64:
        raise Malformed("order of handles")
    box = base64url(parts[3])
    check_box(box)
    return handles, box


def field_info(place, handles):
    return lp("kaizen-audit/field/v1", place["origin"], place["event_id"], place["pointer"], ".".join(handles))


def field_key(place, handles, keys):
    # The place's info names the handles whose keys are used.
    handles = sorted(handles)
    return hkdf(b"".join(keys[h] for h in handles), place["event_id"].encode(), field_info(place, handles))


def open_field(place, text, key, limit):
    handles, box = parse_envelope(text)
    return one_text(open_box(key, field_info(place, handles), box, limit))


def parse_line(text):
    m = re.fullmatch(r'\{"sealed":"([^"]*)"(.*)\}', text)
    if not m:
        raise Malformed("line")
    if m[1] != "v1":
        raise Version()
    m = re.fullmatch(r',"key":"([A-Za-z0-9_-]{12})","data":"([^"]*)"', m[2])
    if not m:
        raise Malformed("line")
    data = base64url(m[2])
    if len(data) <= 16:
        raise Malformed("data")
    check_box(data[16:])
    return m[1], data


def open_salted(under, info, data, limit):
    return open_box(hkdf(under, data[:16], info), info, data[16:], limit)


def open_line(origin, dek, text, limit):
    key_id, data = parse_line(text)
    line = one_text(open_salted(dek, lp("kaizen-audit/line/v1", origin, key_id), data, limit))
    if not line.startswith("{"):
        raise Malformed("no object")
    return line


# --- docs/format.md §1 and §2: lines, tree, checkpoint, proof ---


class Failed(Exception):
    """Something is not proved. The text says what."""


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def leaf_of(line):
    """The leaf of a line: its digest is the entry of RFC 6962 §2.1."""
    return hashlib.sha256(b"\x00" + hashlib.sha256(line).digest()).digest()


def root_from(leaf, index, size, path):
    """Follows an inclusion proof from a leaf to the root (RFC 9162 §2.1.3.2)."""
    if index >= size:
        raise Failed("the index is not below the checkpoint's size")
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            raise Failed("the proof is too long")
        if fn & 1 or fn == sn:
            r = node(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Failed("the proof is too short")
    return r


def base64_of(text, size):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Failed("no base64")
    if len(data) != size or base64.b64encode(data).decode() != text:
        raise Failed("no base64 of %d bytes" % size)
    return data


def number(text):
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text):
        raise Failed("no number where one must be")
    return int(text)


def parse_vkey(vkey):
    """Name, key id and public key of a verifier key, NAME+HASH+KEY (c2sp.org/signed-note)."""
    parts = vkey.strip().split("+", 2)
    if len(parts) != 3 or not re.fullmatch(r"[0-9a-f]{8}", parts[1]):
        raise Failed("the key is no verifier key: NAME+HASH+KEY is one")
    name, key_id, key = parts[0], bytes.fromhex(parts[1]), base64_of(parts[2], 33)
    if key[0] != 1 or hashlib.sha256(name.encode() + b"\n" + key).digest()[:4] != key_id:
        raise Failed("the key is no Ed25519 verifier key")
    return name, key_id, key[1:]


SIGNED = {}  # checkpoints whose signature was looked at: it takes a while


def open_checkpoint(note, vkey):
    """Size and root of a signed checkpoint (c2sp.org/tlog-checkpoint)."""
    if (note, vkey) in SIGNED:
        return SIGNED[note, vkey]
    name, key_id, public = parse_vkey(vkey)
    text, found, signatures = note.rpartition("\n\n")
    text += "\n"
    if not found or not signatures.endswith("\n"):
        raise Failed("the checkpoint is malformed")
    good = False
    for line in signatures[:-1].split("\n"):
        m = re.fullmatch("\u2014 (\\S+) ([A-Za-z0-9+/=]+)", line)
        if not m:
            raise Failed("the checkpoint's signature is malformed")
        if m[1] != name:
            continue  # somebody else's, a witness's say
        try:
            signature = base64.b64decode(m[2], validate=True)
        except ValueError:
            raise Failed("the checkpoint's signature is malformed")
        if signature[:4] != key_id:
            continue
        if not ed_verify(public, text.encode(), signature[4:]):
            raise Failed("the checkpoint's signature is wrong")
        good = True
    if not good:
        raise Failed("the checkpoint is not signed with this key")
    lines = text.split("\n")
    if len(lines) < 4 or lines[0] != name:
        raise Failed("the checkpoint is another trail's")
    SIGNED[note, vkey] = number(lines[1]), base64_of(lines[2], 32)
    return SIGNED[note, vkey]


def check_proof(proof, line, vkey):
    """Index, size and root that a c2sp.org/tlog-proof proves of a line."""
    head, found, note = proof.partition("\n\n")
    lines = head.split("\n")
    if not found or lines.pop(0) != "c2sp.org/tlog-proof@v1":
        raise Failed("there is no proof of this format")
    if lines and lines[0].startswith("extra "):
        lines.pop(0)
    if not lines or not lines[0].startswith("index ") or len(lines) > 64:
        raise Failed("the proof is malformed")
    index, path = number(lines[0][6:]), [base64_of(l, 32) for l in lines[1:]]
    size, root = open_checkpoint(note, vkey)
    if root_from(leaf_of(line), index, size, path) != root:
        raise Failed("the proof does not lead from this line to the signed root")
    return index, size, root


# --- docs/format-sealing.md §6.8: disclosures ---

DISCLOSURE = "kaizen-audit/disclosure/v1"
LIMIT = 1 << 30  # bytes of a line


def no_twins(pairs):
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise Failed("a name stands twice in one object")
    return dict(pairs)


def read_json(text):
    """JSON whose numbers keep their digits; a name that stands twice is refused."""
    try:
        return json.loads(text, object_pairs_hook=no_twins, parse_int=Digits, parse_float=Digits)
    except (ValueError, RecursionError):
        raise Failed("malformed JSON")


class Digits(str):
    """A number as it is spelled."""

    def __eq__(self, other):
        return isinstance(other, Digits) and str(self) == str(other)

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__


def spelled(value):
    """JSON text in the one spelling of docs/format.md §1.1."""
    if isinstance(value, Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(spelled(k) + ":" + spelled(v) for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(spelled(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def names_in(pointer):
    return [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]


def sealable(pointer):
    """Where a value can be sealed at all (§6.3)."""
    parts = pointer.split("/")
    if len(parts) < 2 or parts[0]:
        return False
    if parts[1] in ("error", "purpose", "idempotency_key"):
        return len(parts) == 2
    if parts[1] in ("metadata", "resource"):
        return len(parts) == 3
    return parts[1] in ("inputs", "outputs", "authority")


def place_of(entry, pointer):
    """The object that has the value of a pointer, and its name there."""
    *way, last = names_in(pointer)
    at = entry
    for name in way:
        if not isinstance(at, dict) or name not in at:
            raise Malformed("a sealed field is not where the line says")
        at = at[name]
    if not isinstance(at, dict) or not isinstance(at.get(last), str):
        raise Malformed("a sealed field is not where the line says")
    return at, last


def hidden_value(pointer, state):
    """What is shown in the place of a field that is not (§6.4)."""
    if pointer in ("/inputs", "/outputs", "/authority"):
        return {"sealed": state}
    return "[sealed: %s]" % state


def check_disclosure(text, vkey, hidden=None):
    """Checks one disclosure. Gives index, size, root, and the entry in which the
    disclosed fields are open. hidden says by pointer what is shown for the others."""
    d = read_json(text)
    if not isinstance(d, dict) or d.get("format") != DISCLOSURE:
        raise Failed("it is no disclosure of a version known here")
    want = ["format", "origin", "index", "line", "line_key", "fields", "proof"]
    if [k for k in want if k in d] != list(d) or set(want) - set(d) > {"line_key"} or spelled(d) != text.strip("\n"):
        raise Failed("the disclosure is malformed")
    if not all(isinstance(d[k], str) and not isinstance(d[k], Digits) for k in d if k not in ("index", "fields")):
        raise Failed("the disclosure is malformed")
    if not isinstance(d["index"], Digits) or not isinstance(d["fields"], list):
        raise Failed("the disclosure is malformed")
    origin, line = d["origin"], d["line"]
    index, size, root = check_proof(d["proof"], line.encode(), vkey)
    if index != number(d["index"]) or origin != parse_vkey(vkey)[0]:
        raise Failed("the proof is of another entry")
    try:
        if line.startswith('{"sealed":"'):
            key_id, data = parse_line(line)
            box_key = key_of(d.get("line_key", ""))
            line = one_text(open_box(box_key, lp("kaizen-audit/line/v1", origin, key_id), data[16:], LIMIT))
        elif "line_key" in d:
            raise Failed("there is a key for the line, which is not sealed")
        entry = read_json(line)
        if not isinstance(entry, dict):
            raise Failed("the line is no entry")
        policy = entry.get("policy")
        listed = policy.get("sealed") if isinstance(policy, dict) else None
        listed = listed if isinstance(listed, list) else []
        keys = {}
        for f in d["fields"]:
            if not isinstance(f, dict) or list(f) != ["pointer", "key"] or f["pointer"] not in listed or f["pointer"] in keys:
                raise Failed("a key is given for what is not sealed in this line")
            keys[f["pointer"]] = key_of(f["key"])
        if not keys and hidden is None and not d["line"].startswith('{"sealed":"'):
            return index, size, root, entry  # a line in clear is what it is
        seen = set()
        for pointer in listed:
            if not isinstance(pointer, str) or pointer in seen or not sealable(pointer):
                raise Malformed("list of what is sealed")
            seen.add(pointer)
            at, last = place_of(entry, pointer)
            parse_envelope(at[last])
        for pointer in listed:
            at, last = place_of(entry, pointer)
            place = {"origin": origin, "event_id": entry.get("event_id", ""), "pointer": pointer}
            if pointer in keys:
                value = read_json(open_field(place, at[last], keys[pointer], LIMIT))
            else:
                value = hidden_value(pointer, (hidden or {}).get(pointer, "not disclosed"))
            at[last] = value
    except Open:
        raise Failed("a key does not open what it was given for")
    except (Malformed, Version, TooLarge) as e:
        raise Failed("what is sealed in the line is malformed: %s" % e)
    return index, size, root, entry


def key_of(text):
    data = base64url(text) if isinstance(text, str) else b""
    if len(data) != 32:
        raise Malformed("key")
    return data


# --- docs/subject-access.md: an export of one person's data ---

EXPORT = "kaizen-audit/user-export/v1"


def check_export(read, vkey):
    """Checks an export whose files read(name) gives. Gives its manifest and whether
    the key came from outside."""
    manifest = json.loads(read("manifest.json"))
    if manifest.get("format") != EXPORT:
        raise Failed("it is no export of a version known here")
    for name, digest in manifest["files"].items():
        if hashlib.sha256(read(name)).hexdigest() != digest:
            raise Failed("%s was changed after the export was made" % name)
    key = vkey or manifest["vkey"]
    proofs = {}
    for text in read("disclosures.jsonl").decode().split("\n")[:-1]:
        index = int(json.loads(text)["index"])
        if index in proofs:
            raise Failed("entry %d is disclosed twice" % index)
        proofs[index] = text
    entries, proved, masked = read_json(read("entries.json").decode()), 0, 0
    for e in entries:
        index = int(e["index"])
        if e["proof"] == "masked":
            masked += 1
            continue
        if index not in proofs:
            raise Failed("entry %d is marked as proved, and there is no proof" % index)
        text = proofs.pop(index)
        try:
            at, size, root, entry = check_disclosure(text, key, e["hidden"])
        except Failed as failure:
            raise Failed("entry %d: %s" % (index, failure))
        if at != index or size != manifest["size"] or base64.b64encode(root).decode() != manifest["root"]:
            raise Failed("entry %d is proved under another checkpoint" % index)
        if entry != e["entry"]:
            raise Failed("entry %d is shown other than it was recorded" % index)
        digest = hashlib.sha256(json.loads(text)["line"].encode()).hexdigest()
        if digest != e["digest"]:
            raise Failed("entry %d has another digest" % index)
        proved += 1
    if proofs:
        raise Failed("there are proofs of entries that are not shown")
    if (proved + masked, proved, masked) != (manifest["entries"], manifest["proved"], manifest["masked"]):
        raise Failed("the numbers of entries are not those of the manifest")
    rows = list(csv.reader(io.StringIO(read("entries.csv").decode(), newline="")))
    if [row[0] for row in rows[1:]] != [str(e["index"]) for e in entries]:
        raise Failed("entries.csv has other entries than entries.json")
    return manifest


def reader_of(name):
    """What gives the files of an export: a folder or a zip."""
    if os.path.isdir(name):
        def read(member):
            with open(os.path.join(name, os.path.basename(member)), "rb") as file:
                return file.read()
        return read
    return zipfile.ZipFile(name).read


def main(args=None):
    parser = argparse.ArgumentParser(description="Checks an export of a person's data, or a disclosure, of a kaizen-audit trail.")
    parser.add_argument("file", nargs="?", default=os.path.dirname(os.path.abspath(__file__)),
                        help="a zip or folder of an export, or a disclosure; default: the folder of this script")
    parser.add_argument("--key", default="", help="the trail's verifier key, from somewhere you trust")
    parser.add_argument("--show", action="store_true", help="print the entry of a disclosure")
    options = parser.parse_args(args)
    try:
        if os.path.isdir(options.file) or zipfile.is_zipfile(options.file):
            m = check_export(reader_of(options.file), options.key)
            print("Proved    %d of %d entries, under the signed checkpoint of size %d" % (m["proved"], m["entries"], m["size"]))
            print("Masked    %d entries hold other people's data in clear, and come without a proof" % m["masked"])
            if m["incomplete"]:
                print("NOT WHOLE the trail lacked entries when this was made: see manifest.json")
            print("Trail     %s" % m["origin"])
            if not options.key:
                print("Key       from the export itself; check with --key VKEY: %s" % m["vkey"])
            return 0
        if not options.key:
            parser.error("--key is needed for a disclosure")
        with open(options.file, encoding="utf-8", newline="") as file:
            index, size, root, entry = check_disclosure(file.read(), options.key)
        print("Proved    the line is entry %d of %s" % (index, parse_vkey(options.key)[0]))
        print("Size      %d" % size)
        print("Root      %s" % base64.b64encode(root).decode())
        if options.show:
            print(spelled(entry))
        return 0
    except Failed as failure:
        print("NOT PROVED: %s" % failure, file=sys.stderr)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        print("NOT PROVED: malformed", file=sys.stderr)
    except OSError as e:
        print("can't be read: %s" % e, file=sys.stderr)
        return 3
    return 1


if __name__ == "__main__":
    sys.exit(main())

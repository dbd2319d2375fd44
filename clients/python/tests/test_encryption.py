"""encrypt_at_rest and encryption_key: what the holder that is started does with
them, and who sees the key."""

import base64
import os
import unittest

from common import EVENT, TrailTest, holders

from kaizen_audit import AuditTrailManager, HolderError


def new_key():
    return base64.b64encode(os.urandom(32)).decode()


class Encryption(TrailTest):
    def test_an_encrypted_trail_is_made_and_read_with_its_key_alone(self):
        key = new_key()
        with self.manager(encrypt_at_rest=True, encryption_key=key) as audit:
            audit.record_event({**EVENT, "inputs": {"note": "canary"}, "metadata": {"user_id": "mia"}})
            self.assertEqual([e.data["inputs"]["note"] for e in audit.query_by_user("mia")], ["canary"])
            with open(self.log, "rb") as file:
                stored = file.read()
            self.assertNotIn(b"canary", stored)
            self.assertNotIn(b"mia", stored)
            self.assertIn(b'{"sealed":"v1"', stored)
            # The key is no argument of the holder, and in no repr.
            for pid in holders(self.folder):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    self.assertNotIn(key.encode(), file.read())
            self.assertNotIn(key, repr(vars(audit)) + repr(vars(audit._client)))
            self.end_holder(audit)
        # It is remembered: the key is enough, and another one opens nothing.
        with self.manager(encryption_key=key) as audit:
            self.assertEqual(len(list(audit.query_by_user("mia"))), 1)
            self.end_holder(audit)
        with self.manager(encryption_key=new_key(), timeout=3) as audit:
            with self.assertRaises(HolderError):
                audit.record_event(EVENT)

    def test_a_trail_that_does_not_seal_is_an_error(self):
        with self.manager() as plain:
            plain.record_event(EVENT)
            # While somebody holds it, and when we would have to hold it.
            with self.manager(encrypt_at_rest=True, encryption_key=new_key()) as audit:
                with self.assertRaisesRegex(HolderError, "encrypt_at_rest"):
                    audit.record_event(EVENT)
            self.end_holder(plain)
        with self.manager(encrypt_at_rest=True, encryption_key=new_key(), timeout=3) as audit:
            with self.assertRaises(HolderError):
                audit.record_event(EVENT)

    def test_what_is_no_key_is_an_error_that_does_not_show_it(self):
        for bad in ("", "   ", "hunter2", "0" * 63, base64.b64encode(b"short").decode(), 5):
            with self.subTest(repr(bad)), self.assertRaises(ValueError) as caught:
                AuditTrailManager(audit_log_path=self.log, encryption_key=bad)
            if isinstance(bad, str) and bad.strip():
                self.assertNotIn(bad, str(caught.exception))
        raw = os.urandom(32)
        for good in (raw.hex(), base64.urlsafe_b64encode(raw).decode(), base64.b64encode(raw).decode().rstrip("=")):
            AuditTrailManager(audit_log_path=self.log, encryption_key=good).close()


if __name__ == "__main__":
    unittest.main()

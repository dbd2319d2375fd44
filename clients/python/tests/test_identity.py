import hashlib
import json
import os
import unittest

from common import EVENT, TrailTest

from kaizen_audit import ClosedError, RefusedError

PHI = {
    "user_id": "doctor123", "patient_id": "P12345", "access_reason": "treatment", "phi_type": "medical_history",
}  # fmt: skip
CHD = {
    "user_id": "cashier456", "pos_terminal": "POS-001", "location": "Store-NY-001", "masked_card": "****1234",
}  # fmt: skip


class Pseudonyms(TrailTest):
    def test_a_user_is_found_in_both_forms(self):
        manager = self.manager()
        user = "user*123 \u00fc"
        pseudonym = manager.pseudonymize(user)
        self.assertRegex(pseudonym, "^[0-9a-f]{64}$")
        self.assertNotEqual(pseudonym, hashlib.sha256(user.encode()).hexdigest())
        self.assertNotEqual(pseudonym, manager.pseudonymize("user124"))
        manager.record_event({**EVENT, "metadata": {"user_id": user}})
        manager.record_event({**EVENT, "metadata": {"user_id_hash": pseudonym}})
        manager.record_event({**EVENT, "metadata": {"user_id": "user and 123 \u00fc"}})
        self.end_holder(manager)
        self.assertEqual(manager.pseudonymize(user), pseudonym)
        self.assertEqual(len(manager.query_by_user(user)), 2)
        self.assertEqual(len(list(manager.query(subject=user.replace("*", r"\*")))), 2)
        exported = json.loads(manager.export_user_data(user))
        self.assertEqual([e["metadata"].get("user_id_hash") for e in exported], [None, pseudonym])

    def test_who_stands_there_under_a_pseudonym_only_is_in_no_file(self):
        manager = self.manager()
        manager.record_event(
            {**EVENT, "metadata": {"user_id_hash": manager.pseudonymize("mia.li@example.org")}}
        )
        self.assertEqual(len(manager.query_by_user("mia.li@example.org")), 1)
        self.end_holder(manager)
        for folder, _, files in os.walk(self.folder):
            for name in files:
                with open(os.path.join(folder, name), "rb") as f:
                    self.assertNotIn(b"mia.li", f.read(), name)

    def test_what_is_no_user_is_refused(self):
        manager = self.manager()
        for user in ("", "x" * 1025, None, 7, "\ud800"):
            with self.subTest(user), self.assertRaises(RefusedError) as caught:
                manager.pseudonymize(user)
            self.assertNotIn("xxx", str(caught.exception))
        manager.close()
        with self.assertRaises(ClosedError):
            manager.pseudonymize("user123")


class Accesses(TrailTest):
    def test_an_access_is_the_documented_entry(self):
        manager = self.manager()
        manager.record_phi_access(
            {"agent_id": "qa-agent-001", "action": "patient_record_read", "outputs": {"record_accessed": True}}, **PHI
        )
        manager.record_chd_access({"agent_id": "qa-agent-001", "action": "payment_processing"}, **CHD)
        manager.record_chd_access(
            {"agent_id": "b", "action": "x", "metadata": {"till": 3}, "resource": {"type": "cardholder", "id": "C1"}}, **CHD
        )
        phi, chd, other = manager.audit_entries
        self.assertEqual((phi.event_type, phi.inputs), ("PHI_ACCESS", {"patient_id": "P12345"}))
        self.assertEqual(
            phi.metadata, {"user_id": "doctor123", "access_reason": "treatment", "phi_type": "medical_history"}
        )
        self.assertEqual(phi.resource, {"type": "patient", "id": "P12345"})
        self.assertEqual((chd.event_type, chd.inputs), ("CHD_ACCESS", {"masked_card": "****1234"}))
        self.assertEqual(
            chd.metadata, {"user_id": "cashier456", "pos_terminal": "POS-001", "location": "Store-NY-001"}
        )
        self.assertEqual(chd.resource, {"type": "card", "id": "****1234"})
        self.assertEqual(other.resource, {"type": "cardholder", "id": "C1"})
        self.assertEqual(other.metadata["till"], 3)
        self.assertEqual([e.index for e in manager.query(subject="P12345")], [phi.index])

    def test_what_is_missing_is_named_and_nothing_recorded(self):
        manager = self.manager()
        manager.record_event(EVENT)
        event = {"agent_id": "a", "action": "x"}
        for record, given in ((manager.record_phi_access, PHI), (manager.record_chd_access, CHD)):
            for name in given:
                for nothing in ("", " ", None):
                    with self.subTest(name), self.assertRaisesRegex(RefusedError, name):
                        record(event, **{**given, name: nothing})
                with self.assertRaises(TypeError):
                    record(event, **{n: v for n, v in given.items() if n != name})
            with self.assertRaisesRegex(RefusedError, "event_type"):
                record({**event, "event_type": "TOOL_USE"}, **given)
            with self.assertRaisesRegex(RefusedError, "metadata.user_id"):
                record({**event, "metadata": {"user_id": "nurse789"}}, **given)
        with self.assertRaisesRegex(RefusedError, "resource.id"):
            manager.record_phi_access({**event, "resource": {"id": "P2"}}, **PHI)
        self.assertEqual(len(manager.audit_entries), 1)

    def test_a_card_that_is_not_masked_is_refused(self):
        manager = self.manager()
        event = {"agent_id": "a", "action": "x"}
        for card in (
            "4111111111111111", "4532-1234-5678-9012", "4111 1111 1111 1111", "411111111***1111",
            "4111*1111*1111*1111", "\uff14\uff11" * 8, "501800000009",
        ):  # fmt: skip
            with self.subTest(card), self.assertRaisesRegex(RefusedError, "masked_card") as caught:
                manager.record_chd_access(event, **{**CHD, "masked_card": card})
            self.assertNotIn(card, str(caught.exception))
        for card in ("1234", "4111 11** **** 1111", "41111111****1111", "\u2022\u2022\u2022\u2022 1234"):
            manager.record_chd_access(event, **{**CHD, "masked_card": card})
        self.assertEqual([e.inputs["masked_card"][-4:] for e in manager.audit_entries], ["1234", "1111", "1111", "1234"])


if __name__ == "__main__":
    unittest.main()

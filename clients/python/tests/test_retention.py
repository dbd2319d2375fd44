"""retention_days, rotation_interval and access_control: what the holder that is started does with
them, and that one that does otherwise is an error."""

import unittest

from common import EVENT, TrailTest

from kaizen_audit import AuditTrailManager, DeniedError, HolderError


class Retention(TrailTest):
    def test_the_holder_gets_them_and_the_trail_says_so(self):
        with self.manager(retention_days=400, rotation_interval="monthly") as audit:
            audit.record_event(EVENT)
            self.assertEqual(audit.info()["retention_days"], 400)
            self.assertEqual(audit.info()["rotation_interval"], "monthly")
            self.assertIn("Retention period: 400 days", audit.export_compliance_report())
            # Another manager of the same settings uses the same holder; one of
            # others is told.
            with self.manager(retention_days=400) as same:
                same.record_event(EVENT)
            for option in ({"retention_days": 30}, {"rotation_interval": "weekly"}):
                (name,) = option
                with self.manager(**option) as other:
                    with self.assertRaisesRegex(HolderError, name):
                        other.record_event(EVENT)
            self.end_holder(audit)

    def test_reading_needs_a_role_where_access_is_controlled(self):
        with self.manager(access_control=True, allowed_roles=["auditor", "privacy_officer"]) as audit:
            audit.record_event(EVENT)
            with self.assertRaises(DeniedError):
                audit.audit_entries()
            with self.assertRaises(DeniedError):
                audit.export_compliance_report()
            with self.assertRaises(DeniedError):
                audit.export_user_data("user123")
            self.assertEqual(audit.info()["allowed_roles"], "auditor,privacy_officer")
            with self.manager(access_control=True, allowed_roles=["auditor"]) as other:
                with self.assertRaisesRegex(HolderError, "allowed_roles"):
                    other.record_event(EVENT)
            self.end_holder(audit)

    def test_what_is_no_period_or_interval_is_refused(self):
        for option in ({"retention_days": 0}, {"retention_days": "7 years"}, {"rotation_interval": "hourly"}):
            with self.subTest(option), self.assertRaises(ValueError):
                AuditTrailManager(audit_log_path="a.jsonl", **option)


if __name__ == "__main__":
    unittest.main()

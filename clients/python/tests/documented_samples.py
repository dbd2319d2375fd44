"""The samples of Kaizen's documentation of audit trails, in its order and
unchanged but for their imports (source and licence: SOURCES.md). The lines between the samples
are ours: they give the samples what they take for granted, and check what
they did.
"""

import json
import os
import signal
import types
from datetime import datetime
from pathlib import Path

from kaizen_audit import AuditTrailManager

agent = types.SimpleNamespace(agent_id="qa-agent-001")
trace_id = "abc123def456"


# --- AuditTrailManager

manager = AuditTrailManager(
    audit_log_path="/var/log/kaizen-audit.jsonl",
    retention_days=2555,  # 7 years for HIPAA
    encrypt_at_rest=True,
    access_control=True
)

# --- Retention Policies

# HIPAA: 7-year retention
manager = AuditTrailManager(
    audit_log_path="/var/log/kaizen-audit.jsonl",
    retention_days=2555  # 7 years
)

# PCI-DSS: 3-year retention
manager = AuditTrailManager(
    audit_log_path="/var/log/kaizen-audit.jsonl",
    retention_days=1095  # 3 years
)

# --- Encryption at Rest

# Enable encryption for audit logs
manager = AuditTrailManager(
    audit_log_path="/var/log/kaizen-audit.jsonl",
    encrypt_at_rest=True,
    encryption_key=os.getenv("AUDIT_LOG_ENCRYPTION_KEY")
)

# --- Access Control

open_manager = manager
# Restrict audit log access
manager = AuditTrailManager(
    audit_log_path="/var/log/kaizen-audit.jsonl",
    access_control=True,
    allowed_roles=["auditor", "compliance_officer", "security_admin"]
)

# --- Log Rotation

# Rotate audit logs monthly
manager = AuditTrailManager(
    audit_log_path="/var/log/kaizen-audit.jsonl",
    rotation_interval="monthly",  # daily, weekly, monthly
    backup_to_s3=True,
    s3_bucket="company-audit-logs"
)
# It opens nothing before its first call, and there is no bucket here.
manager = open_manager

# --- PHI Access Logging (HIPAA)

# Log access to Protected Health Information
manager.record_event({
    "timestamp": datetime.now().isoformat(),
    "event_type": "PHI_ACCESS",
    "agent_id": agent.agent_id,
    "trace_id": trace_id,
    "action": "patient_record_read",
    "inputs": {"patient_id": "P12345"},
    "outputs": {"record_accessed": True},
    "duration_ms": 45.2,
    "success": True,
    "metadata": {
        "user_id": "doctor123",
        "access_reason": "treatment",
        "phi_type": "medical_history"
    }
})

# --- Cardholder Data Access (PCI-DSS)

# Log access to cardholder data
manager.record_event({
    "timestamp": datetime.now().isoformat(),
    "event_type": "CHD_ACCESS",
    "agent_id": agent.agent_id,
    "trace_id": trace_id,
    "action": "payment_processing",
    "inputs": {"masked_card": "****1234"},  # Never log full card!
    "outputs": {"transaction_approved": True},
    "duration_ms": 234.5,
    "success": True,
    "metadata": {
        "user_id": "cashier456",
        "pos_terminal": "POS-001",
        "location": "Store-NY-001"
    }
})

# --- Never Log Sensitive Data

# ✅ CORRECT: Mask sensitive data
manager.record_event({
    "inputs": {"masked_card": "****9012"}
})

# --- Pseudonymization (GDPR)

import hashlib

def pseudonymize(user_id: str) -> str:
    return hashlib.sha256(user_id.encode()).hexdigest()

# Log with pseudonymized ID
manager.record_event({
    "metadata": {
        "user_id_hash": pseudonymize("user123"),  # Reversible with key
        "user_id": "user123"  # Store separately for GDPR requests
    }
})

# --- By Agent ID

# Find all actions by specific agent
entries = manager.query_by_agent("qa-agent-001")

for entry in entries:
    print(f"{entry.timestamp}: {entry.action} ({entry.duration_ms}ms)")

assert [e.action for e in entries] == ["patient_record_read", "payment_processing"], entries

# --- By Trace ID

# Find all events in specific trace (user session)
entries = manager.query_by_trace("abc123def456")

# Reconstruct complete user journey
for entry in entries:
    print(f"{entry.event_type}: {entry.action}")

assert [e.event_type for e in entries] == ["PHI_ACCESS", "CHD_ACCESS"], entries

# --- By Time Range

from datetime import datetime, timedelta

# Last 24 hours
end_time = datetime.now()
start_time = end_time - timedelta(days=1)

entries = manager.query_by_timerange(start_time, end_time)
print(f"Found {len(entries)} audit entries in last 24 hours")

assert len(entries) == 4, entries

# --- By User

# Find all actions by specific user (GDPR right to access)
entries = [
    e for e in manager.audit_entries
    if e.metadata.get("user_id") == "user123"
]

# Export user data for GDPR request
user_report = manager.export_user_data("user123")

assert [e.metadata["user_id_hash"] for e in entries] == [pseudonymize("user123")], entries
assert [e["metadata"]["user_id"] for e in json.loads(user_report)] == ["user123"], user_report

# --- Generate Report

report = manager.export_compliance_report()
print(report)

assert "AUDIT TRAIL COMPLIANCE REPORT" in report and "Total entries: 4\n" in report, report

# --- Testing


def test_audit_trail():
    # Create temp audit log
    audit_path = Path("/tmp/test-audit.jsonl")

    manager = AuditTrailManager(audit_log_path=audit_path)

    # Record event
    manager.record_event({
        "timestamp": datetime.now().isoformat(),
        "event_type": "TEST_EVENT",
        "agent_id": "test-agent",
        "trace_id": "trace-123",
        "action": "test_action",
        "inputs": {"test": "input"},
        "outputs": {"test": "output"},
        "duration_ms": 100,
        "success": True
    })

    # Verify file exists and is append-only
    assert audit_path.exists()

    # Query entries
    entries = manager.query_by_agent("test-agent")
    assert len(entries) == 1
    assert entries[0].action == "test_action"


test_audit_trail()

# The holders would end by themselves in a minute.
for path in "/var/log/kaizen-audit.jsonl", "/tmp/test-audit.jsonl":
    os.kill(AuditTrailManager(path).info()["pid"], signal.SIGTERM)
print("samples: ok")

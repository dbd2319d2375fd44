package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// ManagerOptions are the documented options of the audit trail manager. An
// option that this version does not have is an error when it is set, never
// ignored.
type ManagerOptions struct {
	// AuditLogPath is the log; empty means DefaultPath.
	AuditLogPath string
	// RetentionDays is Options.RetentionDays; 0 means 2555, where no period was set
	// before.
	RetentionDays int
	// EncryptAtRest is Options.Encrypt: it counts when the trail is made.
	EncryptAtRest bool
	// EncryptionKey is the trail's key: 32 bytes as base64, base64url or 64 hex
	// digits. Empty means that of AUDIT_LOG_ENCRYPTION_KEY, else a key file's
	// (Options.KeyFile).
	EncryptionKey string
	// AccessControl has calls need a role, of those of AllowedRoles or, where these are
	// empty, auditor, compliance_officer and security_admin: Options.Access says more.
	// Who asks is in the context: WithPrincipal.
	AccessControl bool
	AllowedRoles  []string
	// RotationInterval is Options.RotationInterval.
	RotationInterval string
	// BackupToS3 archives the trail in S3Bucket: a bucket with object lock, with or
	// without a prefix (company-audit-logs/agents), or an s3: URL where it is not
	// Amazon's. OpenS3 opens it: s3.OpenStore of package archive/s3, which this one
	// does not import, so that a program without a bucket has no client for one.
	BackupToS3 bool
	S3Bucket   string
	OpenS3     func(url string) (archive.Store, error)

	// Options are what the documented ones do not say.
	Options
}

// control makes Access of the documented options.
func (o *ManagerOptions) control() error {
	switch {
	case !o.AccessControl && len(o.AllowedRoles) == 0:
		return nil
	case !o.AccessControl:
		return optionError("AllowedRoles", "AccessControl is not set")
	}
	c := Access{}
	if o.Access != nil {
		c = *o.Access
	}
	c.Enabled = true
	if len(o.AllowedRoles) > 0 {
		c.AllowedRoles = o.AllowedRoles
	}
	o.Access = &c
	return nil
}

// backup makes ArchiveTo of the documented options.
func (o *ManagerOptions) backup() error {
	switch {
	case o.BackupToS3 != (o.S3Bucket != ""):
		return optionError("BackupToS3", "it and S3Bucket go together")
	case !o.BackupToS3:
		return nil
	case o.ArchiveTo != nil:
		return optionError("BackupToS3", "ArchiveTo is set too")
	case o.OpenS3 == nil:
		return advice.For(optionError("BackupToS3", "OpenS3 says how a bucket is opened, and is not set"),
			"OpenS3: s3.OpenStore, with import \"github.com/kaizen-audit/kaizen-audit/archive/s3\"")
	}
	url := o.S3Bucket
	if !strings.HasPrefix(url, "s3://") {
		url = "s3://" + url
	}
	var err error
	if o.ArchiveTo, err = o.OpenS3(url); err != nil {
		return optionError("S3Bucket", "%w", err)
	}
	return nil
}

// AuditTrailManager is the documented manager: a trail with queries that
// return slices. The trail itself is its Trail.
type AuditTrailManager struct {
	*Trail
}

// NewAuditTrailManager opens the trail that the options name, and makes it
// where there is none.
func NewAuditTrailManager(opts ManagerOptions) (*AuditTrailManager, error) {
	if err := opts.control(); err != nil {
		return nil, fmt.Errorf("audit trail manager: %w", err)
	}
	path := opts.AuditLogPath
	if path == "" {
		path = DefaultPath
	}
	if err := opts.backup(); err != nil {
		return nil, fmt.Errorf("audit trail manager: %w", err)
	}
	opts.Encrypt = opts.Encrypt || opts.EncryptAtRest
	opts.Options.RetentionDays, opts.Options.RotationInterval = opts.RetentionDays, opts.RotationInterval
	if opts.EncryptionKey != "" {
		k, err := kms.Parse(opts.EncryptionKey)
		if err != nil {
			return nil, fmt.Errorf("audit trail manager: %w", optionError("EncryptionKey", "%w", err))
		}
		opts.KEK = k
	}
	t, err := Open(path, &opts.Options)
	if err != nil {
		return nil, err
	}
	return &AuditTrailManager{t}, nil
}

// RecordEvent records an Event, or a map[string]any with the documented names
// as keys; every documented default is applied.
func (m *AuditTrailManager) RecordEvent(ctx context.Context, event any) (Receipt, error) {
	switch e := event.(type) {
	case Event:
		return m.Record(ctx, e)
	case *Event:
		return m.Record(ctx, *e)
	case map[string]any:
		ev, err := entry.EventFromMap(e)
		if err != nil {
			m.NoteRefused(err)
			return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return m.Record(ctx, ev)
	}
	return Receipt{}, fmt.Errorf("%w: an event is an Event or a map[string]any, not %T", ErrRefused, event)
}

// QueryByAgent gives the entries of an agent, oldest first.
func (m *AuditTrailManager) QueryByAgent(ctx context.Context, agentID string) ([]Entry, error) {
	if agentID == "" {
		return nil, fmt.Errorf("query by agent: %w", errNoID)
	}
	return collect(m.Query(ctx, Query{Agent: query.Literal(agentID)}))
}

// QueryByTrace gives the entries of a trace, oldest first.
func (m *AuditTrailManager) QueryByTrace(ctx context.Context, traceID string) ([]Entry, error) {
	if traceID == "" {
		return nil, fmt.Errorf("query by trace: %w", errNoID)
	}
	return collect(m.Query(ctx, Query{Trace: query.Literal(traceID)}))
}

// QueryByUser gives the entries of a user, under the id (metadata.user_id) or under
// its pseudonym (Trail.Pseudonymize), oldest first.
func (m *AuditTrailManager) QueryByUser(ctx context.Context, userID string) ([]Entry, error) {
	if userID == "" {
		return nil, fmt.Errorf("query by user: %w", errNoID)
	}
	return collect(m.Query(ctx, Query{User: query.Literal(userID)}))
}

// QueryByTimeRange gives the entries whose timestamp lies in the range, both
// ends included, oldest first.
func (m *AuditTrailManager) QueryByTimeRange(ctx context.Context, start, end time.Time) ([]Entry, error) {
	return collect(m.Query(ctx, Query{Since: start, Until: end}))
}

// AuditEntries gives all entries but the trail's own, oldest first.
func (m *AuditTrailManager) AuditEntries(ctx context.Context) ([]Entry, error) {
	return collect(m.Query(ctx, Query{}))
}

// ExportComplianceReport gives the documented report as text.
func (m *AuditTrailManager) ExportComplianceReport(ctx context.Context) (string, error) {
	var b bytes.Buffer
	err := m.WriteComplianceReport(ctx, &b)
	return b.String(), err
}

func isBroken(err error) bool {
	_, ok := errors.AsType[*entry.SyntaxError](err)
	return ok
}

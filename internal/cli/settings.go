package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
	"github.com/kaizen-audit/kaizen-audit/kms"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// settings are what may also stand in the environment or in the configuration
// file: a flag wins over the environment, that over the file, that over the
// default.
type settings struct {
	log          string
	config       string
	durability   durability
	segmentBytes byteSize
	maxLine      byteSize
	checkpointTo sinks
	group        group
	socketGroup  group
	appendOnly   *choice
	anyFS        bool
	retention    period
	lockPeriod   bool
	control      bool
	roles        string
	rotation     *choice
	keyFile      string
	keyURL       string
	openKEK      func(context.Context) (kms.KEK, error) // of keyURL; nil where there is none
	services     []KeyService
	lifecycleKey string
	signer       string
	archiveTo    storeURL
	archiveEvery time.Duration
	archiveRate  byteSize
	archiveKeep  days
	archiveCache byteSize
	allowHTTP    bool
	policy       *policy.Policy // of the file; nil where it says nothing of one
	policyPlaces *policyScan
	anchors      []audit.Anchor // of the file
	access       *audit.Access  // likewise
}

func newSettings() settings {
	return settings{
		segmentBytes: byteSize{least: 64 << 10}, maxLine: byteSize{least: 1 << 10, most: 1 << 30},
		appendOnly: newChoice("off", "sealed", "all"),
		rotation:   newChoice(audit.RotateDaily, audit.RotateWeekly, audit.RotateMonthly, audit.RotateNever),
	}
}

// envPrefix begins the environment variables that are ours. What is not a
// setting and known all the same is outside the rule that unknown ones are
// warned of.
const envPrefix = "KAIZEN_AUDIT_"

var otherEnvironment = []string{"KAIZEN_AUDIT_BIN", "KAIZEN_AUDIT_STATE"}

// settingFlags are the flags that are settings; each has a variable of the
// environment and, but for config, a key in section trail of the file.
var settingFlags = []string{"log", "config", "durability", "segment-bytes", "max-line", "checkpoint-to", "group", "append-only", "socket-group", "any-file-system", "retention-days", "retention-lock", "rotation-interval", "access-control", "allowed-roles", "key-file", "key-url", "lifecycle-key", "signer",
	archivePrefix + "to", archivePrefix + "every", archivePrefix + "rate", archivePrefix + "keep-local", archivePrefix + "cache", "allow-http"}

// archivePrefix begins the flags whose keys stand in section archive; allow-http
// does too.
const archivePrefix = "archive-"

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configKey is a setting's key in section trail, or its section and key.
func configKey(flag string) string {
	if flag == "allow-http" {
		return "archive.allow_http"
	}
	if key, ok := strings.CutPrefix(flag, archivePrefix); ok {
		return "archive." + strings.ReplaceAll(key, "-", "_")
	}
	return strings.ReplaceAll(flag, "-", "_")
}

func (s *settings) addGlobal(f *pflag.FlagSet) {
	f.StringVar(&s.log, "log", audit.DefaultPath, "the trail's log")
	f.StringVar(&s.keyFile, "key-file", "", "the file with the key of an encrypted trail (default $AUDIT_LOG_ENCRYPTION_KEY, else a file below the state directory)")
	f.StringVar(&s.keyURL, "key-url", "", "the URL of the key of an encrypted trail, in a key service (hashivault://HOST/KEY; more in kaizen-audit-kms)")
	f.StringVar(&s.config, "config", "", "configuration file, YAML (sections trail, policy, access, archive and anchors)")
}

// addWriter adds what matters only to commands that write.
func (s *settings) addWriter(f *pflag.FlagSet) {
	f.Var(&s.segmentBytes, "segment-bytes", "seal a segment at this size, such as 64MiB (default 256MiB)")
	f.Var(s.rotation, "rotation-interval", "seal a segment at least this often, by UTC")
	f.Var(&s.retention, "retention-days", "keep entries for this many days, or for those of hipaa, pci, soc2 or eu-ai-act; older ones are pruned (default: as it is set)")
	f.BoolVar(&s.control, "access-control", false, "reading needs a role, which section access of the configuration gives")
	f.StringVar(&s.roles, "allowed-roles", "", "the roles that count, separated by commas (default auditor,compliance_officer,security_admin)")
	f.BoolVar(&s.lockPeriod, "retention-lock", false, "the retention period only grows from now on, for good")
	f.Var(&s.maxLine, "max-line", "longest entry, such as 1MiB (default 16MiB)")
	f.Var(&s.checkpointTo, "checkpoint-to", "send every checkpoint out of the writer's reach: FILE, exec:COMMAND or syslog: (repeatable)")
	f.Var(&s.group, "group", "a group that may read the lines, for a log shipper: NAME or GID (default nobody)")
	f.Var(&s.socketGroup, "socket-group", "a group whose members may record through this process: NAME or GID (default nobody)")
	f.BoolVar(&s.anyFS, "any-file-system", false, "make a trail also where a lock may not keep other machines out (nfs, cifs, 9p, vfat)")
	f.StringVar(&s.lifecycleKey, "lifecycle-key", "", "the file with the trail's lifecycle key, where that is kept apart")
	f.StringVar(&s.signer, "signer", "", "the signer that has the trail's signing key, `unix:/PATH` (default as remembered, else a key in keys/)")
	f.Var(s.appendOnly, "append-only", "set the system's append-only flag on these files (root only)")
	s.addArchive(f)
}

// addAll adds every setting.
func (s *settings) addAll(f *pflag.FlagSet) {
	s.addGlobal(f)
	s.addWriter(f)
	s.addDurability(f)
}

func (s *settings) addDurability(f *pflag.FlagSet) {
	f.Var(&s.durability, "durability", "when a receipt is given: durable (on disk), written (handed to the system) or queued (in memory)")
}

// addArchive adds where and how it is archived.
func (s *settings) addArchive(f *pflag.FlagSet) {
	s.addArchiveTo(f)
	f.DurationVar(&s.archiveEvery, "archive-every", audit.DefaultArchiveEvery, "ship what is not sealed yet each `TIME`")
	f.Var(&s.archiveRate, "archive-rate", "archive no more than this a second, such as 10MiB (default no limit)")
	f.Var(&s.archiveKeep, "archive-keep-local", "remove the file of a sealed segment from this disk after this time, such as 90d, once the archive has it (default never)")
	f.Var(&s.archiveCache, "archive-cache", "keep no more than this of what is read from the archive (default 1GiB)")
}

// addArchiveTo adds where the trail's archive is.
func (s *settings) addArchiveTo(f *pflag.FlagSet) {
	f.Var(&s.archiveTo, "archive-to", "archive the trail while it is held, to this URL: s3://BUCKET or file:///DIR (default nowhere)")
	f.BoolVar(&s.allowHTTP, "allow-http", false, "let the archive's endpoint be plain HTTP on another machine too")
}

// options are the settings as the library takes them.
func (s *settings) options() audit.Options {
	appendOnly := s.appendOnly.value
	if appendOnly == "off" {
		appendOnly = ""
	}
	every := s.archiveEvery
	if every == audit.DefaultArchiveEvery {
		every = 0
	}
	return audit.Options{
		Durability: audit.Durability(s.durability), SegmentBytes: s.segmentBytes.bytes, MaxLine: int(s.maxLine.bytes),
		CheckpointTo: s.checkpointTo, Group: string(s.group), SocketGroup: string(s.socketGroup), AppendOnly: appendOnly, AnyFileSystem: s.anyFS,
		RetentionDays: int(s.retention), RetentionLock: s.lockPeriod, RotationInterval: s.rotation.value,
		KeyFile: s.keyFile, OpenKEK: s.openKEK, LifecycleKeyFile: s.lifecycleKey, Signer: s.signer,
		ArchiveTo: s.archiveStore(), ArchiveEvery: every, ArchiveRate: s.archiveRate.bytes,
		ArchiveKeepLocal: time.Duration(s.archiveKeep), ArchiveCache: s.archiveCache.bytes, OpenArchive: readArchive,
		Policy: s.policy, Anchors: s.anchors, Access: s.accessRules(),
	}
}

// accessRules are those of the file, as the flags change them; nil where neither says
// anything.
func (s *settings) accessRules() *audit.Access {
	if !s.control && s.roles == "" {
		return s.access
	}
	c := audit.Access{}
	if s.access != nil {
		c = *s.access
	}
	c.Enabled = true
	if s.roles != "" {
		c.AllowedRoles = strings.Split(s.roles, ",")
	}
	return &c
}

// resolve gives flags that are settings and were not given their value from
// the environment or the file. The whole file is checked, also what the
// command does not need.
func (s *settings) resolve(ctx context.Context, flags *pflag.FlagSet, warn func(error)) error {
	for _, name := range unknownEnvironment(os.Environ()) {
		warn(fmt.Errorf("environment: %s is no setting of this program", report.Printable(name)))
	}
	given := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	fromEnv := func(name string) error {
		f := flags.Lookup(name)
		v := os.Getenv(envName(name))
		if f == nil || given[name] || v == "" {
			return nil
		}
		for _, v := range listItems(name, v) {
			if err := f.Value.Set(v); err != nil {
				return usagef("environment %s: %w", envName(name), err)
			}
		}
		given[name] = true
		return nil
	}
	for _, name := range settingFlags {
		if err := fromEnv(name); err != nil {
			return err
		}
	}
	if flags.Lookup("log") != nil && s.log == "" {
		return usagef("--log is empty")
	}
	if s.config == "" {
		return errors.Join(s.checkArchive(), s.findKEK())
	}
	scan, err := readConfig(ctx, s.config)
	if err != nil {
		return err
	}
	values := scan.values
	s.policy, s.policyPlaces, s.anchors, s.access = scan.policy, scan.places, scan.anchors, scan.access
	if wrong := checkValues(values); len(wrong) > 0 {
		return configError("config %s: %w", s.config, wrong[0])
	}
	for _, v := range values {
		if f := flags.Lookup(v.flag); f != nil && !given[v.flag] {
			if err := f.Value.Set(v.value); err != nil {
				return err
			}
		}
	}
	return errors.Join(s.checkArchive(), s.findKEK())
}

// findKEK finds who opens the key of --key-url.
func (s *settings) findKEK() (err error) {
	switch {
	case s.keyURL == "":
	case s.keyFile != "":
		return usagef("--key-url and --key-file: the key is in one place")
	default:
		s.openKEK, err = s.keyService(s.keyURL)
	}
	return err
}

// checkArchive holds the archive's endpoint against --allow-http.
func (s *settings) checkArchive() error {
	if err := s.archiveTo.mayHTTP(s.allowHTTP); err != nil {
		return usagef("--archive-to: %w", err)
	}
	return nil
}

// listItems splits the environment's text for a repeatable flag by lines;
// a command may hold any other separator.
func listItems(flag, v string) []string {
	if flag != "checkpoint-to" {
		return []string{v}
	}
	return strings.FieldsFunc(v, func(r rune) bool { return r == '\n' })
}

// unknownEnvironment gives the names that begin like ours and are none.
func unknownEnvironment(environ []string) []string {
	known := slices.Clone(otherEnvironment)
	for _, name := range settingFlags {
		known = append(known, envName(name))
	}
	var unknown []string
	for _, kv := range environ {
		name, v, _ := strings.Cut(kv, "=")
		if v != "" && strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// configValue is one value in the configuration file; a list is several.
type configValue struct {
	flag         string
	value        string
	line, column int // from 1
}

// configProblem is what is wrong at a place of the configuration file. Its text
// holds no value but the words that there are. Its JSON shape only grows.
type configProblem struct {
	Line   int `json:"line"` // from 1; 0 where the place is not known
	Column int `json:"column"`
	// Key is the setting that it is about, if it is about one.
	Key     string `json:"key,omitempty"`
	Problem string `json:"problem"`
}

func (p configProblem) Error() string {
	text := p.Problem
	if p.Key != "" {
		text = p.Key + ": " + text
	}
	if p.Line == 0 {
		return text
	}
	return fmt.Sprintf("line %d: %s", p.Line, text)
}

// checkValues tries every value, whatever the command.
func checkValues(values []configValue) []configProblem {
	all := newSettings()
	check := pflag.NewFlagSet("", pflag.ContinueOnError)
	all.addAll(check)
	var wrong []configProblem
	for _, v := range values {
		err := check.Lookup(v.flag).Value.Set(v.value)
		if err == nil && v.flag == "log" && v.value == "" {
			err = errors.New("is empty")
		}
		if err != nil {
			wrong = append(wrong, configProblem{v.line, v.column, configKey(v.flag), err.Error()})
		}
	}
	return wrong
}

// configError is a usage error about which the command's help says nothing.
func configError(format string, args ...any) error {
	return usageError{hinted{fmt.Errorf(format, args...), ""}}
}

// maxConfig is far above any configuration, and bounds what a wrong path costs.
const maxConfig = 1 << 20

func readConfig(ctx context.Context, name string) (*configScan, error) {
	data, err := loadConfig(ctx, name)
	if err != nil {
		return nil, err
	}
	scan := scanConfig(data)
	if len(scan.wrong) > 0 {
		return nil, configError("config %s: %w", name, scan.wrong[0])
	}
	return scan, nil
}

func loadConfig(ctx context.Context, name string) ([]byte, error) {
	data, err := readOperand(ctx, name, nil, maxConfig)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, configError("config %s: there is no such file", name)
	case err != nil:
		return nil, fmt.Errorf("config %s: %w", name, err)
	case len(data) > maxConfig:
		return nil, configError("config %s: longer than %d bytes", name, maxConfig)
	}
	return data, nil
}

// scanConfig reads the YAML of a configuration file: the values in the order in
// which they stand there, and all that is wrong, in its order.
func scanConfig(data []byte) *configScan {
	s := &configScan{}
	var doc yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(string(data)))
	if err := decoder.Decode(&doc); err != nil {
		if strings.TrimSpace(string(data)) == "" || err.Error() == "EOF" {
			return s
		}
		s.wrong = []configProblem{syntaxProblem(err)}
		return s
	}
	var more yaml.Node
	if err := decoder.Decode(&more); err == nil {
		s.wrong = append(s.wrong, configProblem{Problem: "more than one document"})
	}
	if len(doc.Content) == 1 && doc.Content[0].Tag != "!!null" {
		s.members(doc.Content[0], s.section)
	}
	return s
}

// syntaxProblem takes the line out of the YAML parser's message, which holds
// nothing of the text.
func syntaxProblem(err error) configProblem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, rest, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				return configProblem{Line: n, Problem: rest}
			}
		}
	}
	return configProblem{Problem: text}
}

// configScan goes through a configuration file.
type configScan struct {
	values  []configValue
	policy  *policy.Policy // nil where the file says nothing of one
	places  *policyScan
	anchors []audit.Anchor
	access  *audit.Access
	wrong   []configProblem
}

func (s *configScan) fail(at *yaml.Node, format string, args ...any) {
	s.wrong = append(s.wrong, configProblem{Line: at.Line, Column: at.Column, Problem: fmt.Sprintf(format, args...)})
}

func (s *configScan) section(key string, at, section *yaml.Node) {
	switch {
	case key == "policy":
		s.readPolicy(at, section)
	case key == "anchors":
		s.readAnchors(section)
	case key == "access":
		s.readAccess(at, section)
	case key != "trail" && key != "archive":
		s.fail(at, "unknown section %q; there are trail, policy, access, archive and anchors", key)
	case section.Tag != "!!null":
		s.members(section, func(name string, at, v *yaml.Node) { s.setting(key, name, at, v) })
	}
}

func (s *configScan) setting(section, key string, at, v *yaml.Node) {
	name := key
	if section != "trail" {
		name = section + "." + key
	}
	for _, flag := range settingFlags {
		if flag != "config" && configKey(flag) == name {
			s.scalars(flag, v)
			return
		}
	}
	s.fail(at, "unknown key %q in section %s", key, section)
}

// members calls f for each member of a mapping.
func (s *configScan) members(n *yaml.Node, f func(key string, at, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		s.fail(n, "a mapping (key: value) is needed here")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode:
			s.fail(k, "a key must be a plain name")
		case seen[k.Value]:
			s.fail(k, "%q stands here a second time", k.Value)
		default:
			seen[k.Value] = true
			f(k.Value, k, v)
		}
	}
}

// scalars takes a value, or the items of a list where one may stand.
func (s *configScan) scalars(flag string, n *yaml.Node) {
	list := flag == "checkpoint-to"
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		s.scalar(flag, n)
	case n.Kind == yaml.SequenceNode && list:
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				s.fail(item, "the items of this list are plain text")
				continue
			}
			s.scalar(flag, item)
		}
	case list:
		s.fail(n, "text, or a list of it, is needed here")
	default:
		s.fail(n, "a single value is needed here")
	}
}

func (s *configScan) scalar(flag string, n *yaml.Node) {
	if (flag == "log" || flag == "checkpoint-to") && n.Tag != "!!str" {
		s.fail(n, "text is needed here; put it in quotes if it is a name")
		return
	}
	s.values = append(s.values, configValue{flag, n.Value, n.Line, n.Column})
}

// durability is audit.Durability as a flag.
type durability audit.Durability

func (d *durability) String() string { return audit.Durability(*d).String() }
func (d *durability) Type() string   { return "durable|written|queued" }
func (d *durability) Set(s string) error {
	for _, known := range []audit.Durability{audit.Durable, audit.Written, audit.Queued} {
		if s == known.String() {
			*d = durability(known)
			return nil
		}
	}
	return errors.New("must be durable, written or queued")
}

// byteSize is a number of bytes as a flag: 65536, 64KiB, 256MiB, 1GiB.
type byteSize struct {
	bytes       int64 // 0: not set
	least, most int64 // what it may be; no bound where 0
}

func (b *byteSize) String() string {
	if b.bytes == 0 {
		return ""
	}
	return formatBytes(b.bytes)
}
func (b *byteSize) Type() string { return "size" }
func (b *byteSize) Set(s string) error {
	n, err := parseBytes(s)
	switch {
	case err != nil:
		return err
	case n < b.least:
		return fmt.Errorf("must be at least %s", formatBytes(b.least))
	case b.most > 0 && n > b.most:
		return fmt.Errorf("must be at most %s", formatBytes(b.most))
	}
	b.bytes = n
	return nil
}

// sinks is where checkpoints are sent, as a flag that may be repeated.
type sinks []string

func (s *sinks) String() string { return strings.Join(*s, ", ") }
func (s *sinks) Type() string   { return "to" }
func (s *sinks) Set(to string) error {
	if _, err := witness.ParseSink(to); err != nil {
		return fmt.Errorf("must be FILE, exec:COMMAND or syslog: (%w)", err)
	}
	*s = append(*s, to)
	return nil
}

var byteUnits = []struct {
	name  string
	shift uint
}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"", 0}}

func parseBytes(s string) (int64, error) {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || n == 0 || n > math.MaxInt64>>u.shift {
			break
		}
		return int64(n) << u.shift, nil
	}
	return 0, errors.New("must be a number of bytes, such as 65536, 64KiB, 256MiB or 1GiB")
}

// formatBytes spells a number of bytes for people.
func formatBytes(n int64) string {
	for _, u := range byteUnits[:3] {
		if n >= 1<<u.shift {
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(int64(1)<<u.shift), 'f', 1, 64), ".0") + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " B"
}

// group is a group of the system as a flag.
type group string

func (g *group) String() string { return string(*g) }
func (g *group) Type() string   { return "group" }
func (g *group) Set(s string) error {
	_, err := durable.LookupGroup(s)
	if err == nil {
		*g = group(s)
	}
	return err
}

// choice is a flag that is one of a few words.
type choice struct {
	value   string
	choices []string
}

func newChoice(choices ...string) *choice { return &choice{choices[0], choices} }

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.choices, "|") }
func (c *choice) Set(s string) error {
	if !slices.Contains(c.choices, s) {
		return fmt.Errorf("must be one of %s", strings.Join(c.choices, ", "))
	}
	c.value = s
	return nil
}

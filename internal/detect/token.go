package detect

import "strings"

// vendorPrefix is how all keys of a kind begin.
type vendorPrefix struct {
	text  string
	rule  rule
	least int      // bytes that must follow
	chars tokenSet // of which characters
}

// tokenSet is what a key is made of behind its prefix.
type tokenSet uint8

const (
	setAlnum  tokenSet = iota // letters and digits
	setWord                   // and _ -
	setDotted                 // and _ - . =
	setBase64                 // letters, digits, + / =
	setHex                    // hexadecimal digits
	setUUID                   // and -
)

func (s tokenSet) has(c byte) bool {
	switch s {
	case setAlnum:
		return isAlnum(c)
	case setWord:
		return isWord(c)
	case setDotted:
		return isWord(c) || c == '.' || c == '='
	case setBase64:
		return class[c]&bBase64 != 0 || c == '-' || c == '_'
	case setHex:
		return class[c]&bHex != 0
	default:
		return class[c]&bHex != 0 || c == '-'
	}
}

// vendorPrefixes are the prefixes as the vendors document them; the least
// length is below the documented where only the end may have been cut off.
var vendorPrefixes = []vendorPrefix{
	{"AKIA", ruleAWSKey, 16, setAlnum}, {"ASIA", ruleAWSKey, 16, setAlnum}, {"ABIA", ruleAWSKey, 16, setAlnum}, {"ACCA", ruleAWSKey, 16, setAlnum}, {"A3T", ruleAWSKey, 17, setAlnum},
	{"ABSK", ruleAWSKey, 60, setBase64}, {"bedrock-api-key-", ruleAWSKey, 24, setBase64},
	{"AIza", ruleGCP, 35, setWord}, {"GOCSPX-", ruleGCP, 24, setWord}, {"ya29.", ruleGCP, 20, setDotted},
	{"LTAI", ruleCloud, 12, setAlnum}, {"dop_v1_", ruleCloud, 32, setHex}, {"doo_v1_", ruleCloud, 32, setHex}, {"dor_v1_", ruleCloud, 32, setHex},
	{"HRKU-", ruleCloud, 32, setWord}, {"fo1_", ruleCloud, 40, setWord}, {"fm1a_", ruleCloud, 60, setBase64}, {"fm1r_", ruleCloud, 60, setBase64}, {"fm2_", ruleCloud, 60, setBase64},
	{"hvs.", ruleCloud, 20, setWord}, {"hvb.", ruleCloud, 40, setWord}, {"hvr.", ruleCloud, 20, setWord},
	{"pul-", ruleCloud, 40, setHex}, {"pscale_tkn_", ruleCloud, 30, setDotted}, {"pscale_oauth_", ruleCloud, 30, setDotted}, {"pscale_pw_", ruleCloud, 30, setDotted},
	{"tk-us-", ruleCloud, 40, setWord}, {"v1.0-", ruleCloud, 100, setHex}, {"sbp_", ruleCloud, 40, setAlnum}, {"sb_secret_", ruleCloud, 20, setWord}, {"dp.pt.", ruleCloud, 40, setAlnum}, {"dp.st.", ruleCloud, 40, setDotted},
	{"AQVN", ruleCloud, 35, setWord}, {"nfp_", ruleCloud, 36, setAlnum}, {"p8e-", ruleCloud, 32, setAlnum},
	{"ghp_", ruleGitHub, 36, setAlnum}, {"gho_", ruleGitHub, 36, setAlnum}, {"ghu_", ruleGitHub, 36, setAlnum}, {"ghs_", ruleGitHub, 36, setDotted}, {"ghr_", ruleGitHub, 36, setAlnum}, {"github_pat_", ruleGitHub, 22, setWord},
	{"glpat-", ruleGitLab, 20, setDotted}, {"glptt-", ruleGitLab, 40, setHex}, {"gldt-", ruleGitLab, 20, setDotted}, {"glrt-", ruleGitLab, 20, setDotted}, {"glcbt-", ruleGitLab, 20, setDotted}, {"glft-", ruleGitLab, 20, setWord}, {"glffct-", ruleGitLab, 20, setWord}, {"glimt-", ruleGitLab, 20, setWord}, {"glagent-", ruleGitLab, 40, setWord}, {"gloas-", ruleGitLab, 40, setWord}, {"glsoat-", ruleGitLab, 20, setWord}, {"GR1348941", ruleGitLab, 20, setWord},
	{"ATATT3", ruleCodeHost, 60, setDotted}, {"ATCTT3", ruleCodeHost, 60, setDotted}, {"ATBB", ruleCodeHost, 28, setAlnum}, {"BBDC-", ruleCodeHost, 30, setBase64},
	{"npm_", ruleCodeHost, 36, setAlnum}, {"pypi-AgE", ruleCodeHost, 40, setWord}, {"rubygems_", ruleCodeHost, 48, setHex}, {"dckr_pat_", ruleCodeHost, 20, setWord}, {"dckr_oat_", ruleCodeHost, 20, setWord}, {"sgp_", ruleCodeHost, 40, setWord}, {"CLOJARS_", ruleCodeHost, 60, setAlnum}, {"AKCp", ruleCodeHost, 60, setAlnum}, {"API-", ruleCodeHost, 26, setAlnum}, {"squ_", ruleCodeHost, 40, setAlnum}, {"sqp_", ruleCodeHost, 40, setAlnum}, {"sqa_", ruleCodeHost, 40, setAlnum},
	{"xoxb-", ruleSlack, 16, setWord}, {"xoxp-", ruleSlack, 16, setWord}, {"xoxe-", ruleSlack, 16, setWord}, {"xoxe.xox", ruleSlack, 16, setWord}, {"xoxa-", ruleSlack, 8, setWord}, {"xoxr-", ruleSlack, 8, setWord}, {"xoxs-", ruleSlack, 10, setWord}, {"xoxo-", ruleSlack, 10, setWord}, {"xoxc-", ruleSlack, 10, setWord}, {"xoxd-", ruleSlack, 10, setBase64}, {"xapp-", ruleSlack, 16, setWord},
	{"sk-ant-", ruleAnthropic, 20, setWord}, {"sk-", ruleOpenAI, 20, setWord},
	{"hf_", ruleHuggingFace, 30, setAlnum}, {"api_org_", ruleHuggingFace, 30, setAlnum},
	{"gsk_", ruleModel, 40, setAlnum}, {"xai-", ruleModel, 40, setAlnum}, {"pplx-", ruleModel, 40, setAlnum}, {"r8_", ruleModel, 36, setAlnum}, {"nvapi-", ruleModel, 40, setWord}, {"tgp_v1_", ruleModel, 36, setWord}, {"fw_", ruleModel, 20, setAlnum}, {"csk-", ruleModel, 40, setAlnum}, {"jina_", ruleModel, 40, setWord}, {"pa-", ruleModel, 40, setWord}, {"esecret_", ruleModel, 24, setAlnum}, {"lsv2_pt_", ruleModel, 32, setWord}, {"lsv2_sk_", ruleModel, 32, setWord}, {"tvly-", ruleModel, 20, setWord}, {"sk_car_", ruleModel, 20, setAlnum},
	{"sk_live_", ruleStripe, 10, setAlnum}, {"sk_test_", ruleStripe, 10, setAlnum}, {"sk_prod_", ruleStripe, 10, setAlnum}, {"rk_live_", ruleStripe, 10, setAlnum}, {"rk_test_", ruleStripe, 10, setAlnum}, {"rk_prod_", ruleStripe, 10, setAlnum}, {"whsec_", ruleStripe, 24, setBase64}, {"sk_org_", ruleStripe, 20, setWord},
	{"sq0atp-", rulePayment, 22, setWord}, {"sq0csp-", rulePayment, 22, setWord}, {"EAAA", rulePayment, 22, setWord}, {"shpat_", rulePayment, 32, setHex}, {"shpca_", rulePayment, 32, setHex}, {"shppa_", rulePayment, 32, setHex}, {"shpss_", rulePayment, 32, setHex}, {"shpua_", rulePayment, 32, setHex},
	{"FLWSECK_TEST-", rulePayment, 12, setWord}, {"FLWSECK-", rulePayment, 12, setWord}, {"EZAK", rulePayment, 54, setAlnum}, {"EZTK", rulePayment, 54, setAlnum}, {"shippo_live_", rulePayment, 40, setHex}, {"shippo_test_", rulePayment, 40, setHex}, {"access-sandbox-", rulePayment, 36, setUUID}, {"access-production-", rulePayment, 36, setUUID}, {"access-development-", rulePayment, 36, setUUID}, {"rzp_live_", rulePayment, 14, setAlnum}, {"rzp_test_", rulePayment, 14, setAlnum}, {"access_token$production$", rulePayment, 40, setDotted}, {"live_", rulePayment, 35, setHex}, {"test_", rulePayment, 35, setHex},
	{"SG.", ruleService, 60, setDotted}, {"ntn_", ruleService, 40, setAlnum}, {"secret_", ruleService, 43, setAlnum}, {"lin_api_", ruleService, 40, setAlnum}, {"NRAK-", ruleService, 27, setAlnum}, {"NRII-", ruleService, 32, setWord}, {"PMAK-", ruleService, 59, setUUID}, {"sntrys_", ruleService, 40, setBase64}, {"sntryu_", ruleService, 64, setHex}, {"glsa_", ruleService, 40, setWord}, {"glc_", ruleService, 32, setBase64}, {"ops_eyJ", ruleService, 60, setBase64}, {"A3-", ruleService, 26, setWord}, {"xkeysib-", ruleService, 64, setWord}, {"key-", ruleService, 32, setHex}, {"figd_", ruleService, 36, setWord}, {"tfp_", ruleService, 40, setDotted}, {"EAAC", ruleService, 100, setAlnum}, {"EAAM", ruleService, 100, setAlnum}, {"s-s4t2ud-", ruleService, 64, setHex}, {"s-s4t2af-", ruleService, 64, setHex}, {"duffel_live_", ruleService, 43, setDotted}, {"duffel_test_", ruleService, 43, setDotted}, {"dt0c01.", ruleService, 60, setDotted}, {"fio-u-", ruleService, 60, setDotted}, {"pnu_", ruleService, 36, setAlnum}, {"rdme_", ruleService, 70, setAlnum}, {"ico-", ruleService, 32, setAlnum}, {"CFPAT-", ruleService, 40, setWord}, {"phx_", ruleService, 40, setAlnum}, {"sm_aat_", ruleService, 16, setAlnum}, {"sm_pat_", ruleService, 16, setAlnum}, {"sm_sat_", ruleService, 16, setAlnum}, {"dnkey-", ruleService, 60, setWord}, {"AGE-SECRET-KEY-1", rulePrivateKey, 50, setAlnum}, {"sl.", ruleService, 100, setDotted},
}

// prefixTables are the prefixes by the byte at which they are looked for: the
// first _ - . in them, by the byte before it, or a capital that begins them.
type prefixTables struct{ under, dash, dot, upper [256][]prefixAt }

type prefixAt struct {
	*vendorPrefix
	offset int // of the trigger in the prefix
}

var prefixes = func() (t prefixTables) {
	for i := range vendorPrefixes {
		p := &vendorPrefixes[i]
		at := strings.IndexAny(p.text, "_-.")
		if at < 0 {
			t.upper[p.text[0]] = append(t.upper[p.text[0]], prefixAt{p, 0})
			continue
		}
		by := map[byte]*[256][]prefixAt{'_': &t.under, '-': &t.dash, '.': &t.dot}[p.text[at]]
		by[p.text[at-1]] = append(by[p.text[at-1]], prefixAt{p, at})
	}
	return t
}()

// vendor looks for a key whose prefix has its trigger at i, among those of a
// table, and returns its end; 0 is none.
func (sc *scan) vendor(table []prefixAt, i int) int {
	for _, p := range table {
		start := i - p.offset
		if start < sc.last || !hasAt(sc.text, start, p.text) {
			continue
		}
		if end := sc.keyAt(start, p.vendorPrefix); end > 0 && sc.add(start, end, p.rule, len(p.text)) {
			return end
		}
	}
	return 0
}

// keyAt is the end of a key with prefix p at start; 0 is none.
func (sc *scan) keyAt(start int, p *vendorPrefix) int {
	text := sc.text
	if !sc.wordStarts(start) {
		return 0
	}
	from := start + len(p.text)
	end := from
	for end < len(text) && p.chars.has(text[end]) {
		end++
	}
	for end > from && (text[end-1] == '.' || text[end-1] == '-' && p.chars == setUUID) {
		end--
	}
	if end-from < p.least || !varied(text[from:end]) {
		return 0
	}
	switch n := end - from; p.text { // of a fixed length, and the beginnings of other words too
	case "API-":
		if n != 26 {
			return 0
		}
	case "EZAK", "EZTK":
		if n != 54 {
			return 0
		}
	case "hf_", "api_org_":
		if n > 40 || !mixed(text[from:end]) {
			return 0
		}
	case "ico-":
		if sc.byteAt(start-1) == '.' {
			return 0
		}
	}
	switch p.rule {
	case ruleAWSKey:
		if p.least <= 17 {
			// The id is of capitals and the digits of base 32.
			if end-from != p.least {
				return 0
			}
			for _, c := range text[from:end] {
				if class[c]&bUpper == 0 && !isDigit(c) {
					return 0
				}
			}
			sc.aws = true
		}
	case ruleOpenAI, ruleModel:
		// "sk-" begins words too: sk-learn-contrib-estimators. A key has
		// digits, and a run without a hyphen.
		if !opaque(text[from:end]) {
			return 0
		}
	case ruleService, rulePayment, ruleCodeHost, ruleCloud:
		if !hasDigit(text[from:end]) {
			return 0
		}
	}
	return end
}

// wordStarts reports whether a word may begin at i: the middle of one is no
// beginning, so that each word is read once. The n of a \n in a text that was
// quoted twice, and the d of %3d, belong to no word.
func (sc *scan) wordStarts(i int) bool {
	return i == 0 || !isWord(sc.text[i-1]) || i > 1 && sc.text[i-2] == '\\' || i > 2 && sc.text[i-3] == '%'
}

// varied reports whether a key's bytes are more than a filler such as xxxx.
func varied(b []byte) bool {
	var seen [4]byte
	n := 0
next:
	for _, c := range b {
		for _, s := range seen[:n] {
			if s == c {
				continue next
			}
		}
		if n == len(seen) {
			return true
		}
		seen[n] = c
		n++
	}
	return false
}

// opaque reports whether b looks made by chance: it has a digit and a letter,
// and somewhere 12 bytes without a separator.
func opaque(b []byte) bool {
	digit, letter, run, longest := false, false, 0, 0
	for _, c := range b {
		switch {
		case isDigit(c):
			digit = true
		case isLetter(c):
			letter = true
		default:
			run = -1
		}
		run++
		longest = max(longest, run)
	}
	return digit && letter && longest >= 12
}

// prefixed looks, at an underscore, for a key.
func (sc *scan) prefixed(i int) int {
	if i > 0 {
		if table := prefixes.under[sc.text[i-1]]; table != nil {
			if end := sc.vendor(table, i); end > 0 {
				return end
			}
		}
	}
	return i + 1
}

// upper looks, at a capital, for what begins with it: keys, JSON Web Tokens,
// Bearer and Basic.
func (sc *scan) upper(i int) int {
	text := sc.text
	c := text[i]
	switch c {
	case 'J':
		if hasAt(text, i-2, "ey") {
			if end := sc.jwt(i - 2); end > 0 {
				return end
			}
		}
		return i + 1
	case 'B':
		if hasAt(text, i, "Bearer ") || hasAt(text, i, "Basic ") {
			if end := sc.bearer(i); end > 0 {
				return end
			}
		}
	case 'S':
		if sc.byteAt(i+1) == 'K' && (i == 0 || !isWord(text[i-1])) {
			// Twilio: SK and 32 hexadecimal digits.
			if e := spanClass(text, i+2, bHex); e-i == 34 && !isAlnum(sc.byteAt(e)) && varied(text[i+2:e]) && sc.add(i, e, ruleService, 2) {
				return e
			}
		}
	}
	if !sc.wordStarts(i) {
		return i + 1
	}
	if table := prefixes.upper[c]; table != nil {
		if end := sc.vendor(table, i); end > 0 {
			return end
		}
	}
	return i + 1
}

// dot looks, at a dot between two characters of a word, for keys that have one
// and for the hosts of webhooks.
func (sc *scan) dot(i int) int {
	text := sc.text
	if i == 0 || i+1 >= len(text) || !isAlnum(text[i+1]) || !isWord(text[i-1]) {
		return i + 1
	}
	switch text[i+1] {
	case 's':
		if hasAt(text, i-5, "hooks.slack.com/") {
			if end := sc.webhook(i+len(".slack.com/"), ruleSlack, "services/", "workflows/", "triggers/"); end > 0 {
				return end
			}
		}
	case 'c':
		if hasAt(text, i, ".com/api/") && (hasAt(text, i-7, "discord") || hasAt(text, i-10, "discordapp")) {
			if end := sc.webhook(i+len(".com/api/"), ruleDiscord, "webhooks/", "v"); end > 0 {
				return end
			}
		}
	case 'o':
		if hasAt(text, i-7, "webhook.office.com/") {
			if end := sc.webhook(i+len(".office.com/"), ruleTeams, "webhookb2/", "webhook/"); end > 0 {
				return end
			}
		}
	case 'a':
		if hasAt(text, i, ".atlasv1.") {
			if end := spanWord(text, i+9); end-i >= 49 {
				start := i
				for start > sc.last && i-start < 20 && isAlnum(text[start-1]) {
					start--
				}
				if sc.add(start, end, ruleCloud, 0) {
					return end
				}
			}
		}
	}
	if table := prefixes.dot[text[i-1]]; table != nil {
		if end := sc.vendor(table, i); end > 0 {
			return end
		}
	}
	// Discord: 24 to 28 characters, 6, 27 and more, of which the first are a
	// user's id in base64.
	if i+7 < len(text) && text[i+7] == '.' {
		if end := sc.discordBot(i); end > 0 {
			return end
		}
	}
	return i + 1
}

func spanWord(text []byte, i int) int {
	for i < len(text) && isWord(text[i]) {
		i++
	}
	return i
}

func (sc *scan) discordBot(i int) int {
	text := sc.text
	start := i
	for start > sc.last && i-start <= 28 && isWord(text[start-1]) {
		start--
	}
	if n := i - start; n < 23 || n > 28 || spanWord(text, i+1) != i+7 {
		return 0
	}
	if c := text[start]; c != 'M' && c != 'N' && c != 'O' {
		return 0
	}
	end := spanWord(text, i+8)
	if end-i-8 < 27 || !sc.add(start, end, ruleDiscord, 0) {
		return 0
	}
	return end
}

// webhook notes the path of a webhook, which is the secret, behind one of kinds
// at p.
func (sc *scan) webhook(p int, r rule, kinds ...string) int {
	text := sc.text
	for _, k := range kinds {
		if !hasAt(text, p, k) {
			continue
		}
		end := p + len(k)
		for end < len(text) && (isWord(text[end]) || text[end] == '/' || text[end] == '@' || text[end] == '+' || text[end] == '.' && isAlnum(sc.byteAt(end+1))) {
			end++
		}
		if end-p-len(k) >= 20 && sc.add(p+len(k), end, r, 0) {
			return end
		}
	}
	return 0
}

// tilde looks for Azure's client secrets, three characters, a digit, Q~ and 31
// to 34 more, and OpenShift's sha256~ tokens.
func (sc *scan) tilde(i int) int {
	text := sc.text
	is := func(c byte) bool { return isWord(c) || c == '.' || c == '~' }
	if start := i - 5; start >= sc.last && text[i-1] == 'Q' && isDigit(text[i-2]) && is(text[i-3]) && is(text[i-4]) && is(text[i-5]) && (start == 0 || !is(text[start-1])) {
		end := i + 1
		for end < len(text) && is(text[end]) {
			end++
		}
		if n := end - i - 1; n >= 31 && n <= 35 && varied(text[i+1:end]) && sc.add(start, end, ruleAzure, 0) {
			return end
		}
	}
	if start := i - len("sha256"); start >= sc.last && hasAt(text, start, "sha256") {
		if end := spanWord(text, i+1); end-i == 44 && varied(text[i+1:end]) && sc.add(start, end, ruleCloud, len("sha256~")) {
			return end
		}
	}
	return i + 1
}

// databricks looks for dapi and 32 hexadecimal digits around the digit at i.
func (sc *scan) databricks(i int) int {
	text := sc.text
	start := i
	for start > sc.last && i-start < 37 && isLetter(text[start-1]) {
		start--
	}
	if !hasAt(text, start, "dapi") {
		return 0
	}
	end := spanClass(text, start+4, bHex)
	if end-start != 36 || !varied(text[start+4:end]) {
		return 0
	}
	if sc.byteAt(end) == '-' && isDigit(sc.byteAt(end+1)) {
		end += 2
	}
	if isAlnum(sc.byteAt(end)) || !sc.add(start, end, ruleCloud, 4) {
		return 0
	}
	return end
}

// jwt is the end of a JSON Web Token at start, noted; 0 is none. "eyJ" is the
// base64 of {" : the header is an object. A signature may be missing (alg none,
// or cut off), and five parts are an encrypted one.
func (sc *scan) jwt(start int) int {
	text := sc.text
	if start < sc.last || !sc.wordStarts(start) {
		return 0
	}
	p := spanWord(text, start)
	header := p - start
	if header < 17 {
		return 0
	}
	if sc.byteAt(p) != '.' {
		// Grafana's keys are such an object alone, with its key "k".
		if hasAt(text, start, "eyJrIjoi") && header >= 60 && sc.add(start, spanClass(text, p, bBase64), ruleService, 0) {
			return sc.last
		}
		return 0
	}
	parts := 1
	end := p
	for parts < 5 && end < len(text) && text[end] == '.' {
		next := spanWord(text, end+1)
		if parts == 1 && (next-end-1 < 10 || !hasAt(text, end+1, "ey")) && !(next-end-1 >= 40 || next == end+1 && sc.byteAt(next) == '.') {
			return 0
		}
		end = next
		parts++
	}
	if text[end-1] == '.' && parts < 5 {
		end-- // the full stop of a sentence, or an empty signature
	}
	if parts < 2 || !sc.add(start, end, ruleJWT, 0) {
		return 0
	}
	return end
}

// bearer looks at "Bearer " or "Basic " at i for a credential behind it.
func (sc *scan) bearer(i int) int {
	text := sc.text
	basic := text[i+1] == 'a'
	p := i + len("Bearer ")
	if basic {
		p = i + len("Basic ")
	}
	end := p
	for end < len(text) && (class[text[end]]&bBase64 != 0 || isWord(text[end]) || text[end] == '.' || text[end] == '~') {
		end++
	}
	for end > p && text[end-1] == '.' {
		end--
	}
	token := text[p:end]
	if basic {
		if len(token) < 8 || !decodesToPair(token) {
			return 0
		}
	} else if len(token) < 16 || !varied(token) || !hasDigit(token) {
		return 0
	}
	if !sc.add(p, end, ruleBearer, 0) {
		return 0
	}
	if hasAt(text, p, "AKIA") {
		sc.aws = true
	}
	return end
}

func hasDigit(b []byte) bool {
	for _, c := range b {
		if isDigit(c) {
			return true
		}
	}
	return false
}

// sextet is the value of a base64 character, 64 for none.
func sextet(c byte) byte {
	switch {
	case class[c]&bUpper != 0:
		return c - 'A'
	case class[c]&bLower != 0:
		return c - 'a' + 26
	case isDigit(c):
		return c - '0' + 52
	case c == '+' || c == '-':
		return 62
	case c == '/' || c == '_':
		return 63
	}
	return 64
}

// decode64 decodes the base64 of src into dst as far as both go, and returns
// what it wrote. What is no base64 ends it.
func decode64(dst, src []byte) []byte {
	n, bits, have := 0, uint32(0), 0
	for _, c := range src {
		v := sextet(c)
		if v == 64 {
			break
		}
		bits, have = bits<<6|uint32(v), have+6
		if have >= 8 {
			if n == len(dst) {
				break
			}
			have -= 8
			dst[n] = byte(bits >> have)
			n++
		}
	}
	return dst[:n]
}

// decodesToPair reports whether base64 holds user:password.
func decodesToPair(token []byte) bool {
	var buf [96]byte
	colon := false
	for _, c := range decode64(buf[:], token) {
		if c < ' ' || c == 0x7f {
			return false
		}
		colon = colon || c == ':'
	}
	return colon
}

// besideAWSBytes is how far from an access key id its secret is looked for.
const besideAWSBytes = 256

// besideAWS looks around AWS access key ids for their secret: a word of exactly
// 40 base64 characters that is no hash in hexadecimal.
func (sc *scan) besideAWS() {
	text := sc.text
	done := 0
	n := len(sc.dst)
	for at := sc.base; at < n; at++ {
		m := sc.dst[at]
		if m.Rule != rules[ruleAWSKey].Rule && m.Class != Secret {
			continue
		}
		if !hasAWSID(text[m.Start:m.End]) {
			continue
		}
		lo, hi := max(done, m.Start-besideAWSBytes), min(len(text), m.End+besideAWSBytes)
		for lo > done && class[text[lo-1]]&bBase64 != 0 && m.Start-lo < besideAWSBytes+64 {
			lo--
		}
		for k := lo; k < hi; {
			if class[text[k]]&bBase64 == 0 {
				k++
				continue
			}
			// An equals sign is an assignment before, padding behind.
			if text[k] == '=' {
				k++
				continue
			}
			e := k
			for e < len(text) && class[text[e]]&bBase64 != 0 && text[e] != '=' {
				e++
			}
			if e-k == 40 && secretLike(text[k:e]) && sc.s.on[ruleAWSSecret] {
				sc.dst = append(sc.dst, Match{Start: k, End: e, Rule: rules[ruleAWSSecret].Rule, Class: Secret})
				sc.unsorted = true
			}
			k = e
		}
		done = hi
	}
}

func hasAWSID(b []byte) bool {
	return len(b) >= 20 && (b[0] == 'A')
}

// secretLike reports whether 40 base64 characters look like a secret: capitals,
// small letters and digits, not a hexadecimal hash, not a path.
func secretLike(b []byte) bool {
	var seen uint8
	slashes := 0
	for _, c := range b {
		seen |= class[c]
		if c == '/' {
			slashes++
		}
	}
	return seen&bUpper != 0 && seen&bLower != 0 && seen&bDigit != 0 && slashes <= 6
}

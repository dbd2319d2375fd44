package detect

// Key is what a member's name says about the values under it.
type Key struct {
	Rule  string
	Class Class
	kind  keyKind
}

// keyKind is how a value under a name is judged.
type keyKind uint8

const (
	kindNone     keyKind = iota // the name only looks like one: next_page_token
	kindWhole                   // anything
	kindSecret                  // anything that holds something
	kindHeader                  // the same, but for its scheme; in a text, with one, the rest of the line
	kindCookie                  // the same; in a text, if it begins with a=b, the rest of the line
	kindLine                    // the same; in a text the rest of the line
	kindLines                   // PuTTY's Private-Lines: a count and the base64 of a key
	kindPath                    // pwd: a password unless it is a path
	kindWeak                    // sig, auth: what looks like a key
	kindPass                    // pass: text, not a number or a verdict
	kindCard                    // 8 digits and more
	kindCardWeak                // cc, card: 12 digits and more
	kindCode                    // 3 or 4 digits
	kindPIN                     // 4 to 12 digits, or a PIN block
	kindTrack                   // anything of stripe data's length
	kindDOB                     // what has the digits of a date
	kindSSN                     // 9 digits
	kindNHS                     // 10 digits
	kindPhone                   // 7 to 15 digits
)

type nameEntry struct{ Key }

type builtinName struct {
	rule rule
	kind keyKind
}

// builtinNames are the names, in lower case without separators. A name means
// what its last words mean: db_password is a password.
var builtinNames = func() map[string]builtinName {
	all := map[string]builtinName{}
	for _, group := range []struct {
		builtinName
		names []string
	}{
		{builtinName{ruleCard, kindCard}, []string{"cardnumber", "cardnumbers", "cardno", "cardnum", "cardnr", "cardpan", "ccnumber", "ccnum", "ccno", "ccnr", "ccn", "creditcard", "creditcards", "creditcardnumber", "creditcardnum", "creditcardno", "debitcard", "debitcardnumber", "pan", "pans", "fpan", "dpan", "primaryaccountnumber", "paymentcardnumber"}},
		{builtinName{ruleCard, kindCardWeak}, []string{"cc", "card", "cards", "paymentcard", "bankcard"}},
		{builtinName{ruleCVV, kindCode}, []string{"cvv", "cvv2", "cvc", "cvc2", "cvn", "cvn2", "cvd", "csc", "cav2", "cid", "cvvcode", "cvccode", "cvvnumber", "cvcnumber", "securitycode", "cardsecuritycode", "cardverificationcode", "cardverificationvalue", "cardverificationnumber", "cardcode"}},
		{builtinName{rulePIN, kindPIN}, []string{"pin", "pinnumber", "pincode", "cardpin", "atmpin", "pinblock", "userpin"}},
		{builtinName{ruleTrack, kindTrack}, []string{"track1", "track2", "track3", "trackdata", "track1data", "track2data", "trackone", "tracktwo", "magstripe", "magneticstripe", "magstripedata", "track2equivalentdata"}},
		{builtinName{rulePassword, kindSecret}, []string{"password", "passwords", "passwd", "passcode", "userpassword", "pword", "psw", "passwort", "kennwort", "contrasena", "motdepasse", "senha"}},
		{builtinName{rulePassword, kindPath}, []string{"pwd"}},
		{builtinName{rulePassword, kindPass}, []string{"pass"}},
		{builtinName{rulePassword, kindLine}, []string{"passphrase", "passphrases", "mnemonic", "seedphrase", "recoveryphrase", "recoverykey", "mnemonicphrase"}},
		{builtinName{ruleSecretName, kindSecret}, []string{"secret", "secrets", "secretkey", "clientsecret", "appsecret", "token", "accesstoken", "refreshtoken", "idtoken", "authtoken", "apitoken", "apikey", "apikeys", "xapikey", "apisecret", "accesskey", "secretaccesskey", "accountkey", "sharedaccesskey", "storagekey", "privatekey", "presharedkey", "psk", "sshkey", "signingkey", "encryptionkey", "decryptionkey", "masterkey", "deploykey", "servicekey", "servicerolekey", "subscriptionkey", "functionskey", "xfunctionskey", "authkey", "hmackey", "hmacsecret", "sessionkey", "licensekey", "adminkey", "rootkey", "otp", "onetimepassword", "authorizationtoken", "securitytoken", "xamzsignature", "usertoken", "bundleenterprisecontribsyscom", "bundlegemscontribsyscom", "herokukey", "snykkey", "hubspotkey", "mailchimpkey", "sendgridkey", "mailgunkey", "twiliokey", "datadogkey", "algoliakey", "stripekey", "openaikey", "anthropickey", "azurekey", "gcpkey", "awskey", "githubkey", "slackkey", "squarekey", "paypalkey"}},
		{builtinName{rulePrivateKey, kindLines}, []string{"privatelines"}},
		{builtinName{ruleSecretName, kindHeader}, []string{"authorization", "proxyauthorization", "xauthorization", "wwwauthorization"}},
		{builtinName{ruleSecretName, kindWeak}, []string{"sig", "auth", "xauth", "credential", "credentials", "creds", "key", "sessionid", "sessid", "phpsessid", "jsessionid", "login", "connectionstring"}},
		{builtinName{ruleCookie, kindCookie}, []string{"cookie", "cookies", "setcookie", "setcookies", "sessioncookie", "authcookie"}},
		{builtinName{ruleSSN, kindSSN}, []string{"ssn", "socialsecuritynumber", "socialsecurity", "socialsecurityno", "socialsecurityid"}},
		{builtinName{ruleNHS, kindNHS}, []string{"nhsnumber", "nhsno", "nhsid", "nhs"}},
		{builtinName{rulePhone, kindPhone}, []string{"phone", "phonenumber", "phoneno", "telephone", "telephonenumber", "mobile", "mobilenumber", "mobilephone", "cellphone", "cell", "fax", "faxnumber", "homephone", "workphone", "whatsapp"}},
		{builtinName{ruleDOB, kindDOB}, []string{"dob", "dateofbirth", "birthdate", "birthday", "dateofbirthday", "birthdt", "bday", "born", "bornon", "geburtsdatum", "datedenaissance"}},
		// Positions, vocabulary and measures of language models; handles of pages.
		{builtinName{ruleSecretName, kindNone}, []string{"pagetoken", "nexttoken", "nextpagetoken", "prevpagetoken", "continuationtoken", "cursortoken", "synctoken", "starttoken", "endtoken", "stoptoken", "padtoken", "eostoken", "bostoken", "unktoken", "masktoken", "septoken", "clstoken", "specialtoken", "firsttoken", "lasttoken", "maxtoken", "mintoken", "numtoken", "pertoken", "prompttoken", "inputtoken", "outputtoken", "completiontoken", "totaltoken", "imagetoken", "texttoken", "onetoken", "eachtoken", "everytoken", "thistoken",
			"primarykey", "foreignkey", "publickey", "sortkey", "partitionkey", "hashkey", "cachekey", "sshpublickey", "idempotencykey"}},
	} {
		for _, n := range group.names {
			all[n] = group.builtinName
		}
	}
	return all
}()

// freeEndings are taken at the end of a longer word too, which nobody wrote in
// words: dbpassword.
var freeEndings = []string{"password", "passwd", "passphrase", "secret", "token", "apikey", "secretkey", "accesskey", "privatekey", "cardnumber", "creditcard"}

// qualifiers may stand behind a name without changing it.
var qualifiers = func() map[string]bool {
	all := map[string]bool{}
	for _, q := range []string{"hash", "value", "val", "confirm", "confirmation", "confirmed", "old", "new", "plain", "plaintext", "raw", "b64", "base64", "header", "again", "repeat", "prod", "dev", "staging"} {
		all[q] = true
	}
	return all
}()

// nameBuf is a name in words: lower case, without what separates them.
type nameBuf struct {
	buf    [64]byte
	n      int
	starts [16]uint8 // of the words
	words  int
}

// split reads the last 64 bytes of name. A word begins behind what is neither
// letter nor digit, and at a capital that follows a small letter or a digit or
// is followed by a small one.
func (b *nameBuf) split(name []byte) {
	if len(name) > len(b.buf) {
		name = name[len(name)-len(b.buf):]
	}
	begin := true
	for i, c := range name {
		if !isAlnum(c) {
			begin = true
			continue
		}
		if class[c]&bUpper != 0 && i > 0 && (class[name[i-1]]&(bLower|bDigit) != 0 || class[name[i-1]]&bUpper != 0 && i+1 < len(name) && class[name[i+1]]&bLower != 0) {
			begin = true
		}
		if begin {
			if b.words == len(b.starts) {
				copy(b.starts[:], b.starts[1:])
				b.words--
			}
			b.starts[b.words] = uint8(b.n)
			b.words++
			begin = false
		}
		b.buf[b.n] = lower(c)
		b.n++
	}
}

// nameEnds are the last two letters of all names, and their lengths by first
// letter, so that most others are known without looking them up.
type nameEnds struct {
	ends [26]uint32 // bit of the letter before the last, by the last
	lens [26]uint32 // bit of the length, by the first letter
	all  bool       // there is a name that has no such ends: 2fa
}

func (e *nameEnds) add(name string) {
	n := len(name)
	for n > 2 && isDigit(name[n-1]) {
		n--
	}
	if a, b := name[max(0, n-2)]-'a', name[n-1]-'a'; a < 26 && b < 26 {
		e.ends[b] |= 1 << a
	} else {
		e.all = true
	}
	if first := name[0] - 'a'; first < 26 {
		e.lens[first] |= 1 << min(len(name), 31)
	}
}

// may reports whether a name that ends so may be one. Digits and signs at the
// end do not count.
func (e *nameEnds) may(name []byte) bool {
	if e.all {
		return true
	}
	n := len(name)
	for n > 0 && !isLetter(name[n-1]) {
		n--
	}
	return n > 1 && isLetter(name[n-2]) && e.ends[name[n-1]&0x1F-1]&(1<<(name[n-2]&0x1F-1)) != 0
}

// has reports whether a whole name, in lower case, may be one.
func (e *nameEnds) has(name []byte) bool {
	first := name[0] - 'a'
	return first >= 26 || e.lens[first]&(1<<min(len(name), 31)) != 0
}

// Name says what the values under a member of that name are. Upper and lower
// case, camelCase, snake_case and kebab-case are the same, and the last words
// count: STRIPE_API_KEY is an api_key.
func (s *Set) Name(name []byte) (Key, bool) {
	if !s.ends.may(name) && !qualifierEnds.may(name) {
		return Key{}, false
	}
	var b nameBuf
	b.split(name)
	for range 3 {
		if b.words == 0 {
			return Key{}, false
		}
		joined := b.buf[:b.n]
		for w := max(0, b.words-6); w < b.words; w++ {
			name := joined[b.starts[w]:]
			if !s.ends.has(name) {
				continue
			}
			if e, ok := s.names[string(name)]; ok {
				return e.Key, e.kind != kindNone
			}
		}
		last := joined[b.starts[b.words-1]:]
		n := b.n
		for n > int(b.starts[b.words-1]) && isDigit(joined[n-1]) {
			n--
		}
		switch {
		case n < b.n && n > int(b.starts[b.words-1]): // password2
			b.n = n
			continue
		case n < b.n, qualifierEnds.has(last) && qualifiers[string(last)]: // password_2, password_hash
			b.n = int(b.starts[b.words-1])
			b.words--
			continue
		}
		for _, f := range freeEndings {
			if len(last) > len(f) && last[len(last)-1] == f[len(f)-1] && string(last[len(last)-len(f):]) == f {
				if e, ok := s.names[string(last[max(0, len(last)-len(f)-4):])]; ok {
					return e.Key, e.kind != kindNone
				}
				e, ok := s.names[f]
				return e.Key, ok
			}
		}
		return Key{}, false
	}
	return Key{}, false
}

var qualifierEnds = func() (e nameEnds) {
	for q := range qualifiers {
		e.add(q)
	}
	return e
}()

// Value is Text for a scalar under a member for which Name gave k: it appends
// what the name makes of it, and what Text finds beside that. A number is given
// as it is written.
func (s *Set) Value(dst []Match, k Key, text []byte) []Match {
	sc := scan{s: s, text: text, dst: dst, base: len(dst)}
	if from, to, ok := sc.judge(k, 0, len(text)); ok {
		sc.addKey(from, to, k)
		if from == 0 && to == len(text) && k.Class != Personal {
			return sc.dst
		}
		// Nothing looks back before a finding, so what stands before this one
		// is looked at first.
		m := sc.dst[len(sc.dst)-1]
		sc.dst = sc.dst[:len(sc.dst)-1]
		sc.last = 0
		sc.run(0)
		sc.dst = append(sc.dst, m)
		sc.unsorted = true
		return sc.finish()
	}
	sc.run(0)
	return sc.finish()
}

// underName notes what a name in the text makes of the value from v to end,
// and returns where to go on; 0 is nothing found.
func (sc *scan) underName(k Key, v, end int) int {
	from, to, ok := sc.judge(k, v, end)
	if !ok || !sc.addKey(from, to, k) {
		return 0
	}
	if k.kind == kindSecret && hasAWSID(sc.text[from:to]) {
		sc.aws = true
	}
	return to
}

// judge says which part of the value from v to end is what the name says.
func (sc *scan) judge(k Key, v, end int) (int, int, bool) {
	b := sc.text[v:end]
	if len(b) == 0 {
		return 0, 0, false
	}
	switch k.kind {
	case kindWhole:
		return v, end, true
	case kindSecret, kindLine, kindLines:
		return v, end, !placeholder(b)
	case kindCookie:
		return v, end, !placeholder(b)
	case kindHeader:
		v += sc.scheme(v)
		return v, end, v < end && !placeholder(sc.text[v:end])
	case kindPath:
		path := b[0] == '/' || b[0] == '~' || b[0] == '.' || len(b) > 2 && b[1] == ':' && (b[2] == '\\' || b[2] == '/')
		return v, end, !path && !placeholder(b)
	case kindWeak:
		n := 0
		for n < len(b) && (class[b[n]]&bBase64 != 0 || isWord(b[n]) || b[n] == '%' || b[n] == '.' || b[n] == '~') {
			n++
		}
		return v, v + n, n >= 20 && n == len(b) && opaque(b) && mixed(b) && !sc.uuidAt(v)
	case kindPass:
		digits := digitsEnd(b, 0)
		return v, end, len(b) >= 4 && digits < len(b) && !placeholder(b)
	case kindCard, kindCardWeak:
		least := minCardKeyDigits
		if k.kind == kindCardWeak {
			least = minCard
		}
		from, to := digitRun(b, least)
		return v + from, v + to, to > from
	case kindCode:
		return exactDigits(b, v, 3, 4)
	case kindPIN:
		if from, to, ok := exactDigits(b, v, 4, 12); ok {
			return from, to, ok
		}
		return v, end, len(b) == 16 && spanClass(b, 0, bHex) == 16
	case kindTrack:
		return v, end, len(b) >= 16 && hasDigit(b)
	case kindDOB:
		for len(b) > 0 && !isAlnum(b[len(b)-1]) {
			b = b[:len(b)-1]
		}
		n := count(b)
		return v, v + len(b), n >= 4 && n <= 14 && len(b) <= 40
	case kindSSN:
		return only(b, v, 9, 9)
	case kindNHS:
		return only(b, v, 10, 10)
	case kindPhone:
		from, to, ok := only(b, v, 7, 15)
		if ok {
			to = sc.extension(to)
		}
		return from, to, ok
	}
	return 0, 0, false
}

// digitRun is the first run of at least least digits in any grouping: by what
// separates groups, and underscores, in any number.
func digitRun(b []byte, least int) (int, int) {
	for i := 0; i < len(b); {
		if !isDigit(b[i]) {
			i++
			continue
		}
		var x number
		n, end := 0, i
		group, fours, luhn16 := 0, true, false
		cut := 0
		for p := i; p < len(b); {
			if isDigit(b[p]) {
				x.push(b[p])
				n++
				p++
				group++
				end = p
				continue
			}
			k, _ := sepLen(b, p)
			if k == 0 && (b[p] == '_' || b[p] == ' ' || b[p] == '\t') {
				k = 1
			}
			if k == 0 {
				break
			}
			// 4-4-4-4 is a number, unless what follows belongs to it: three
			// more may be its security code, whose digits the mask must not
			// show.
			fours = fours && (group == 4 || group == 0)
			if fours && n == 16 {
				cut, luhn16 = p, x.luhn()
			}
			group = 0
			p += k
		}
		if cut > 0 && (n > maxCard || n == maxCard && luhn16 && !x.luhn()) {
			end = cut
		}
		if n >= least {
			return i, end
		}
		i = end
	}
	return 0, 0
}

// exactDigits accepts least to most digits, alone but for spaces, at the
// beginning of b.
func exactDigits(b []byte, v, least, most int) (int, int, bool) {
	p := 0
	for p < len(b) && b[p] == ' ' {
		p++
	}
	e := digitsEnd(b, p)
	if e-p < least || e-p > most || e < len(b) && (isAlnum(b[e]) || b[e] == '-' || b[e] == '_' || b[e] == '.' && e+1 < len(b) && isDigit(b[e+1])) {
		return 0, 0, false
	}
	return v + p, v + e, true
}

func count(b []byte) (n int) {
	for _, c := range b {
		if isDigit(c) {
			n++
		}
	}
	return n
}

// only accepts a value of digits and what numbers of persons are written with,
// at its beginning.
func only(b []byte, v, least, most int) (int, int, bool) {
	n, end := 0, 0
	for i, c := range b {
		switch {
		case isDigit(c):
			n++
			end = i + 1
			continue
		case c == ' ' || c == '-' || c == '.' || c == '(' || c == ')' || c == '+' || c == '/':
			continue
		}
		break
	}
	return v, v + end, n >= least && n <= most
}

// mixed reports whether b has letters of both cases, or is hexadecimal.
func mixed(b []byte) bool {
	var seen uint8
	hex := true
	for _, c := range b {
		seen |= class[c]
		hex = hex && class[c]&bHex != 0
	}
	return seen&bUpper != 0 && (seen&bLower != 0 || len(b) >= 32) || hex && len(b) >= 32
}

// placeholder reports whether a value under a secret's name holds none: what
// stands for a missing value, a reference to one, or a mask. Longer ones than
// that are taken for secrets.
func placeholder(b []byte) bool {
	if len(b) > 64 {
		return false
	}
	if len(b) == 0 {
		return true
	}
	switch string(b) {
	case "null", "NULL", "None", "none", "nil", "true", "false", "True", "False", "undefined", "...", "[REDACTED]", "REDACTED", "redacted":
		return true
	}
	n := len(b)
	switch {
	case b[0] == '<' && b[n-1] == '>', b[0] == '$' && n > 1 && (b[1] == '{' || b[1] == '(' || isDigit(b[1]) && n == 2), b[0] == '{' && n > 1 && (b[1] == '{' || isLetter(b[1]) && !hasDigit(b)), hasAt(b, 0, "process.env."), hasAt(b, 0, "os.environ"), hasAt(b, 0, "os.getenv("):
		return true
	case b[0] == '$' && n > 2:
		for _, c := range b[1:] {
			if class[c]&bUpper == 0 && c != '_' {
				return false
			}
		}
		return true
	}
	if n >= 4 && string(b[n-4:]) == maskText {
		return true
	}
	for _, c := range b {
		if c != '*' && c != '.' && c != '-' && c != '_' && c != '(' && c != '[' && c != '{' && c != '=' && c != ',' {
			return false
		}
	}
	return true
}

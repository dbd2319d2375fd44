package detect

// at looks, at an @, for an e-mail address: a local part before, a domain with
// a top level of letters behind.
func (sc *scan) at(i int) int {
	text := sc.text
	const maxLocal = 64 // RFC 5321 4.5.3.1.1
	start := i
	for start > sc.last && i-start <= maxLocal && (class[text[start-1]]&bMailBox != 0 || text[start-1] >= 0x80) {
		start--
	}
	for start < i && !isAlnum(text[start]) && text[start] < 0x80 {
		start++ // what stands before an address in a sentence
	}
	if start == i || i-start > maxLocal {
		return i + 1
	}
	const maxDomain = 255 // RFC 5321 4.5.3.1.2
	end, label, last := i+1, i+1, 0
	for end < len(text) && end-i <= maxDomain {
		c := text[end]
		if isAlnum(c) || c >= 0x80 || c == '-' && end > label {
			end++
			continue
		}
		if c == '.' && end > label && end+1 < len(text) && (isAlnum(text[end+1]) || text[end+1] >= 0x80) {
			last = end + 1
			end++
			label = end
			continue
		}
		break
	}
	for end > label && text[end-1] == '-' {
		end--
	}
	if last == 0 || end-last < 2 {
		return i + 1
	}
	for _, c := range text[last:end] {
		if isDigit(c) && !hasFold(text, last, "xn--") {
			return i + 1 // a version: react@18.2.0
		}
	}
	if sc.add(start, end, ruleEmail, 0) {
		return end
	}
	return i + 1
}

// ibanLengths is the length of an IBAN by country, as SWIFT's registry has it.
var ibanLengths = func() map[[2]byte]int {
	all := map[[2]byte]int{}
	const registry = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
	for i := 0; i+4 <= len(registry); i += 5 {
		all[[2]byte{registry[i], registry[i+1]}] = int(registry[i+2]-'0')*10 + int(registry[i+3]-'0')
	}
	return all
}()

// ibanAt is the end of an IBAN at i, in one piece or in groups with one space
// or hyphen between, ISO 13616 with its check of ISO 7064 MOD 97-10; 0 is none.
func (sc *scan) ibanAt(i int) int {
	text := sc.text
	country := [2]byte{text[i] &^ 0x20, text[i+1] &^ 0x20}
	want := ibanLengths[country]
	if want == 0 {
		return 0
	}
	var c [34]byte
	n, end := 0, i
	for p := i; p < len(text); p++ {
		b := text[p]
		if isAlnum(b) {
			if n == want {
				return 0 // it goes on
			}
			c[n] = b
			n++
			end = p + 1
			continue
		}
		if n == want || b != ' ' && b != '-' || p+1 >= len(text) || !isAlnum(text[p+1]) {
			break
		}
	}
	if n != want {
		return 0
	}
	mod := 0
	for k := range n {
		b := c[(k+4)%n]
		if isDigit(b) {
			mod = (mod*10 + int(b-'0')) % 97
		} else {
			mod = (mod*100 + int(b&^0x20-'A') + 10) % 97
		}
	}
	if mod != 1 {
		return 0
	}
	return end
}

// ip6 is the end of an IPv6 address (RFC 4291 2.2) whose first colon is at i,
// noted; 0 is none.
func (sc *scan) ip6(i int) int {
	text := sc.text
	start := i
	for start > 0 && i-start <= 4 && class[text[start-1]]&bHex != 0 {
		start--
	}
	if i-start > 4 || start < sc.last || start > 0 && (isWord(text[start-1]) || text[start-1] == ':' || text[start-1] == '.') {
		return 0
	}
	groups, run, longest := 0, 0, 0
	short := false
	end := start
	for p := start; p <= len(text) && p-start <= 45; p++ {
		var c byte
		if p < len(text) {
			c = text[p]
		}
		if class[c]&bHex != 0 {
			run++
			if run > 4 {
				return 0
			}
			longest = max(longest, run)
			continue
		}
		if run > 0 {
			groups++
			end = p
		}
		if c == '.' && run > 0 && run <= 3 && isDigit(sc.byteAt(p+1)) {
			// The last 32 bits as IPv4.
			r := sc.rowAt(p - run)
			e := 0
			if r.groups == 4 || r.groups == 5 && r.seps[3] == '/' {
				e = sc.ip4(&r)
			}
			if e == 0 {
				return 0
			}
			groups++
			end = e
			longest = 4
			run = 0
			break
		}
		if c != ':' {
			if isAlnum(c) {
				return 0
			}
			break
		}
		if run == 0 && p > start {
			if text[p-1] == ':' {
				if short || p > start+1 && text[p-2] == ':' {
					return 0
				}
				short = true
				end = p + 1
			}
		}
		run = 0
	}
	if groups > 8 || !short && groups != 8 || groups > 7 && short {
		return 0
	}
	// Slices of arrays are written alike (a[2::4]), and so are scopes (a::b).
	if short && groups < 4 && longest < 3 && string(text[start:end]) != "::1" {
		return 0
	}
	if end-start < 3 || isWord(sc.byteAt(end)) {
		return 0
	}
	if !sc.add(start, end, ruleIP, 0) {
		return 0
	}
	return end
}

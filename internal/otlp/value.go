package otlp

import (
	"encoding/base64"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/genai"
)

// maxDepth is how deep the values of an attribute may be nested: an entry has
// 128 levels, and two of them can be needed for one here.
const maxDepth = 48

// appendValue appends a value as JSON. What is no number in JSON is its name, as
// in protobuf's own JSON; bytes are base64. bag says that the value holds
// headers.
func appendValue(dst []byte, v *value, bag bool) []byte {
	switch v.kind {
	case textual:
		return appendText(dst, v.text, bag)
	case boolean:
		return strconv.AppendBool(dst, v.n != 0)
	case integer:
		return strconv.AppendInt(dst, int64(v.n), 10)
	case double:
		f := math.Float64frombits(v.n)
		switch {
		case math.IsNaN(f):
			return append(dst, `"NaN"`...)
		case math.IsInf(f, 1):
			return append(dst, `"Infinity"`...)
		case math.IsInf(f, -1):
			return append(dst, `"-Infinity"`...)
		case f == math.Trunc(f) && math.Abs(f) < 1<<53:
			return strconv.AppendFloat(dst, f, 'f', -1, 64)
		}
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	case list:
		dst = append(dst, '[')
		for i := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, &v.members[i].value, bag)
		}
		return append(dst, ']')
	case mapping:
		var seen names
		dst = append(dst, '{')
		for i := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			m := &v.members[i]
			dst = append(genai.AppendText(dst, seen.unique(m.key)), ':')
			if hidden(m.key, bag) {
				dst = append(dst, omittedCredential...)
			} else {
				dst = appendValue(dst, &m.value, bag)
			}
		}
		return append(dst, '}')
	case binary64:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, []byte(v.text))
		return append(dst, '"')
	case tooDeep:
		dst = append(dst, `{"omitted":"nested deeper than `...)
		dst = strconv.AppendInt(dst, maxDepth, 10)
		dst = append(dst, ` levels","bytes":`...)
		dst = strconv.AppendUint(dst, v.n, 10)
		return append(dst, '}')
	}
	return append(dst, "null"...)
}

// appendParsed is appendValue, with text that is a JSON object or array as that:
// of the value, and of the elements of an array.
func appendParsed(dst []byte, v *value) []byte {
	switch v.kind {
	case textual:
		if looksJSON(v.text) {
			if parsed, ok := genai.Parse([]byte(v.text)); ok {
				if dst == nil {
					return parsed
				}
				return append(dst, parsed...)
			}
		}
	case list:
		dst = append(dst, '[')
		for i := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			if e := &v.members[i].value; e.kind == textual {
				dst = appendParsed(dst, e)
			} else {
				dst = appendValue(dst, e, false)
			}
		}
		return append(dst, ']')
	}
	return appendValue(dst, v, false)
}

func looksJSON(s string) bool {
	s = strings.TrimLeft(s, " \t\r\n")
	return s != "" && (s[0] == '{' || s[0] == '[')
}

var omittedCredential = []byte(`{"omitted":"credential"}`)

// appendAttribute appends an attribute's value, but for a credential.
func appendAttribute(dst []byte, a *attribute) []byte {
	last := a.key[strings.LastIndexByte(a.key, '.')+1:]
	bag := strings.HasSuffix(strings.ToLower(last), "headers") || last == "header"
	inBag := strings.Contains(a.key, ".header.") || strings.Contains(a.key, ".headers.")
	switch {
	case hidden(last, inBag):
		return append(dst, omittedCredential...)
	case a.value.kind == textual && urls[a.key]:
		return genai.AppendText(dst, cleanURL(a.value.text))
	}
	return appendValue(dst, &a.value, bag)
}

// suspicious are words that the name of a header holds which carries a
// credential of some system that nobody here knows.
var suspicious = []string{"auth", "token", "secret", "key", "cookie", "passw", "credential", "session", "signature", "jwt"}

// hidden tells whether the value of that name is a credential. Of headers any
// suspicious name is.
func hidden(name string, header bool) bool {
	if genai.IsCredential(name) {
		return true
	}
	if !header {
		return false
	}
	name = strings.ToLower(name)
	return slices.ContainsFunc(suspicious, func(word string) bool { return strings.Contains(name, word) })
}

// appendText appends text. Credentials of headers in JSON that is in the text
// are left out; of headers as some other text, all is where one is mentioned.
func appendText(dst []byte, s string, bag bool) []byte {
	if !bag && !looksJSON(s) || !genai.MentionsCredential([]byte(s)) {
		return genai.AppendText(dst, s)
	}
	if bag {
		return append(dst, omittedCredential...)
	}
	if parsed, ok := genai.Parse([]byte(s)); ok && strings.Count(string(parsed), string(omittedCredential)) > strings.Count(s, string(omittedCredential)) {
		s = string(parsed)
	}
	return genai.AppendText(dst, s)
}

// urls are the attributes that hold a URL or a part of one, old names too.
var urls = map[string]bool{"url.full": true, "url.original": true, "url.query": true, "http.url": true, "http.target": true}

// secretParameters are parameters of a URL that are a credential: those that the
// conventions name (registry of url attributes), and those of model providers.
var secretParameters = []string{
	"awsaccesskeyid", "signature", "sig", "x-goog-signature", "x-amz-signature", "x-amz-credential", "x-amz-security-token",
	"key", "api_key", "api-key", "apikey", "access_token", "id_token", "refresh_token", "token", "client_secret", "password", "code",
}

// cleanURL leaves the credentials of a URL out, and what is no URL as it is.
func cleanURL(s string) string {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
			s = scheme + "://REDACTED" + rest[at:]
		}
	}
	path, parameters, ok := strings.Cut(s, "?")
	if !ok {
		if !strings.Contains(s, "=") {
			return s
		}
		path, parameters = "", s // url.query has no question mark
	}
	changed := false
	parts := strings.Split(parameters, "&")
	for i, p := range parts {
		name, v, has := strings.Cut(p, "=")
		if plain, err := url.QueryUnescape(name); has && v != "" && err == nil && slices.Contains(secretParameters, strings.ToLower(plain)) {
			parts[i], changed = name+"=REDACTED", true
		}
	}
	if !changed {
		return s
	}
	if ok {
		path += "?"
	}
	return path + strings.Join(parts, "&")
}

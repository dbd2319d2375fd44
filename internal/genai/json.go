package genai

import (
	"slices"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// depth is how deep a value may come to stand in an entry: the entry, inputs,
// and what an observer puts around it.
const depth = 8

// AppendText appends text as a JSON string. What is no UTF-8 in it becomes
// U+FFFD.
func AppendText(dst []byte, text string) []byte {
	out, ok := entry.AppendString(dst, text)
	if !ok {
		out, _ = entry.AppendString(dst, strings.ToValidUTF8(text, "\ufffd"))
	}
	return out
}

// Text is text as a value, absent where it is empty.
func Text(text string) JSON {
	if text == "" {
		return nil
	}
	return AppendText(make([]byte, 0, len(text)+16), text)
}

// Parse reads JSON that came as text. It is false where the text is no JSON, or
// none that an entry takes; the text itself is then what there is to keep.
func Parse(text []byte) (JSON, bool) {
	v, err := entry.AppendCompact(make([]byte, 0, len(text)), text, depth)
	if err != nil {
		return nil, false
	}
	return Clean(v), true
}

// omittedCredential stands for a value that nobody may read in a log.
var omittedCredential = []byte(`{"omitted":"credential"}`)

// credentials are the headers that carry one, in lower case: those of HTTP
// itself, and those that the providers' own clients send.
var credentials = []string{
	"authorization", "proxy-authorization", "cookie", "set-cookie", "cookie2", "set-cookie2",
	"api-key", "x-api-key", "apikey", "x-auth-token", "x-access-token", "x-csrf-token", "x-xsrf-token",
	"x-goog-api-key", "x-goog-iam-authorization-token", "x-amz-security-token", "x-functions-key",
	"ocp-apim-subscription-key", "x-subscription-token", "x-vault-token", "x-serverless-authorization",
	"cf-access-client-secret", "cf-access-jwt-assertion", "x-forwarded-client-cert",
	"authorization-token", // Anthropic's mcp_servers
}

// IsCredential tells whether a header of that name carries a credential. The
// underscores of a configuration's spelling count as hyphens.
func IsCredential(name string) bool {
	const longest = len("x-goog-iam-authorization-token")
	if len(name) < len("cookie") || len(name) > longest {
		return false
	}
	return slices.Contains(credentials, strings.ReplaceAll(strings.ToLower(name), "_", "-"))
}

// MentionsCredential tells whether the name of such a header may be in text.
func MentionsCredential(text []byte) bool {
	// One of these is in every name of the list.
	for i := 0; i+3 <= len(text); i++ {
		switch text[i] | 0x20 {
		case 'a': // auth…, api-key, api_key, apikey
			if has(text[i:], "auth") || has(text[i:], "api-key") || has(text[i:], "api_key") || has(text[i:], "apikey") {
				return true
			}
		case 'c':
			if has(text[i:], "cookie") || has(text[i:], "csrf") || has(text[i:], "cf-access") || has(text[i:], "cf_access") || has(text[i:], "client-cert") || has(text[i:], "client_cert") {
				return true
			}
		case 't':
			if has(text[i:], "token") {
				return true
			}
		case 'x':
			if has(text[i:], "xsrf") {
				return true
			}
		case 'f':
			if has(text[i:], "functions-key") || has(text[i:], "functions_key") {
				return true
			}
		case 's':
			if has(text[i:], "subscription-key") || has(text[i:], "subscription_key") {
				return true
			}
		}
	}
	return false
}

// has tells whether text begins with word, which is in lower case.
func has(text []byte, word string) bool {
	return len(text) >= len(word) && strings.EqualFold(string(text[:len(word)]), word)
}

// Clean gives v, which must be compact, without the credentials of headers: the
// value of a member of that name in any object.
func Clean(v JSON) JSON {
	if len(v) == 0 || v[0] != '{' && v[0] != '[' || !MentionsCredential(v) {
		return v
	}
	return appendClean(make([]byte, 0, len(v)), v)
}

// appendClean copies a value that is valid. Its text is scanned as it stands:
// only strings can hide a bracket.
func appendClean(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		if v[i] != '"' {
			dst = append(dst, v[i])
			i++
			continue
		}
		end := stringEnd(v, i)
		dst = append(dst, v[i:end]...)
		name := v[i+1 : end-1]
		i = end
		if i == len(v) || v[i] != ':' {
			continue
		}
		dst = append(dst, ':')
		i++
		if IsCredential(string(name)) {
			dst = append(dst, omittedCredential...)
			i = valueEnd(v, i)
		}
	}
	return dst
}

// stringEnd is where the string that begins at v[i] ends.
func stringEnd(v []byte, i int) int {
	for i++; v[i] != '"'; i++ {
		if v[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// valueEnd is where the value that begins at v[i] ends.
func valueEnd(v []byte, i int) int {
	for open := 0; i < len(v); {
		switch v[i] {
		case '"':
			i = stringEnd(v, i)
			if open == 0 {
				return i
			}
			continue
		case '{', '[':
			open++
		case '}', ']':
			if open == 0 {
				return i
			}
			if open--; open == 0 {
				return i + 1
			}
		case ',':
			if open == 0 {
				return i
			}
		}
		i++
	}
	return i
}

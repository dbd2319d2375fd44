package detect_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/detect"
)

const (
	alnum   = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	base32  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	base64s = alnum + "+/"
	word    = alnum + "_-"
	hexa    = "0123456789abcdef"
)

func random(r *rand.Rand, chars string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = chars[r.IntN(len(chars))]
	}
	// What is made by chance has a digit.
	b[n/2] = '2'
	b[n/3] = chars[0]
	return string(b)
}

// generated are keys of a form, made by chance for each test: the source has no
// text that looks like one.
var generated = []struct {
	rule string
	make func(r *rand.Rand) string
}{
	{"aws_access_key", func(r *rand.Rand) string { return "AKIA" + random(r, base32, 16) }},
	{"aws_access_key", func(r *rand.Rand) string { return "ASIA" + random(r, base32, 16) }},
	{"aws_access_key", func(r *rand.Rand) string { return "ABIA" + random(r, base32, 16) }},
	{"aws_access_key", func(r *rand.Rand) string { return "ACCA" + random(r, base32, 16) }},
	{"aws_access_key", func(r *rand.Rand) string { return "ABSK" + random(r, base64s, 120) }},
	{"gcp_key", func(r *rand.Rand) string { return "AIza" + random(r, word, 35) }},
	{"gcp_key", func(r *rand.Rand) string { return "GOCSPX-" + random(r, word, 28) }},
	{"gcp_key", func(r *rand.Rand) string { return "ya29." + random(r, word, 120) }},
	{"azure_key", func(r *rand.Rand) string {
		return random(r, alnum, 3) + "8Q~" + random(r, word, 34)
	}},
	{"cloud_token", func(r *rand.Rand) string { return "LTAI" + random(r, alnum, 20) }},
	{"cloud_token", func(r *rand.Rand) string { return "dop_v1_" + random(r, hexa, 64) }},
	{"cloud_token", func(r *rand.Rand) string { return "dapi" + random(r, hexa, 32) }},
	{"cloud_token", func(r *rand.Rand) string { return "hvs." + random(r, word, 95) }},
	{"cloud_token", func(r *rand.Rand) string { return random(r, alnum, 14) + ".atlasv1." + random(r, word, 65) }},
	{"github_token", func(r *rand.Rand) string { return "ghp_" + random(r, alnum, 36) }},
	{"github_token", func(r *rand.Rand) string { return "ghs_" + random(r, alnum, 36) }},
	{"github_token", func(r *rand.Rand) string { return "github_pat_" + random(r, alnum, 22) + "_" + random(r, alnum, 59) }},
	{"gitlab_token", func(r *rand.Rand) string { return "glpat-" + random(r, word, 20) }},
	{"gitlab_token", func(r *rand.Rand) string { return "glrt-" + random(r, word, 20) }},
	{"code_host_token", func(r *rand.Rand) string { return "ATBB" + random(r, alnum, 32) }},
	{"code_host_token", func(r *rand.Rand) string { return "npm_" + random(r, alnum, 36) }},
	{"code_host_token", func(r *rand.Rand) string { return "pypi-AgEIcHlwaS5vcmc" + random(r, word, 80) }},
	{"slack_token", func(r *rand.Rand) string {
		return "xoxb-" + random(r, "0123456789", 12) + "-" + random(r, "0123456789", 12) + "-" + random(r, alnum, 24)
	}},
	{"slack_token", func(r *rand.Rand) string {
		return "xapp-1-A" + random(r, alnum, 10) + "-" + random(r, "0123456789", 13) + "-" + random(r, hexa, 64)
	}},
	{"discord_token", func(r *rand.Rand) string {
		return "M" + random(r, alnum, 23) + "." + random(r, alnum, 6) + "." + random(r, word, 38)
	}},
	{"telegram_token", func(r *rand.Rand) string { return "1" + random(r, "0123456789", 9) + ":AA" + random(r, word, 33) }},
	{"openai_key", func(r *rand.Rand) string { return "sk-" + random(r, alnum, 20) + "T3BlbkFJ" + random(r, alnum, 20) }},
	{"openai_key", func(r *rand.Rand) string {
		return "sk-proj-" + random(r, alnum, 74) + "T3BlbkFJ" + random(r, alnum, 74)
	}},
	{"openai_key", func(r *rand.Rand) string { return "sk-or-v1-" + random(r, hexa, 64) }},
	{"anthropic_key", func(r *rand.Rand) string { return "sk-ant-api03-" + random(r, word, 93) + "AA" }},
	{"huggingface_token", func(r *rand.Rand) string { return "hf_" + random(r, alnum, 34) }},
	{"model_provider_key", func(r *rand.Rand) string { return "gsk_" + random(r, alnum, 52) }},
	{"model_provider_key", func(r *rand.Rand) string { return "xai-" + random(r, alnum, 80) }},
	{"model_provider_key", func(r *rand.Rand) string { return "nvapi-" + random(r, alnum, 64) }},
	{"model_provider_key", func(r *rand.Rand) string { return "r8_" + random(r, alnum, 37) }},
	{"stripe_key", func(r *rand.Rand) string { return "sk_" + "live_" + random(r, alnum, 24) }},
	{"stripe_key", func(r *rand.Rand) string { return "rk_" + "test_" + random(r, alnum, 99) }},
	{"stripe_key", func(r *rand.Rand) string { return "whsec_" + random(r, alnum, 32) }},
	{"payment_key", func(r *rand.Rand) string { return "sq0atp-" + random(r, word, 22) }},
	{"payment_key", func(r *rand.Rand) string { return "EAAA" + random(r, word, 60) }},
	{"payment_key", func(r *rand.Rand) string { return "shpat_" + random(r, hexa, 32) }},
	{"service_token", func(r *rand.Rand) string { return "SG." + random(r, word, 22) + "." + random(r, word, 43) }},
	{"service_token", func(r *rand.Rand) string { return "SK" + random(r, hexa, 32) }},
	{"service_token", func(r *rand.Rand) string { return "key-" + random(r, hexa, 32) }},
	{"service_token", func(r *rand.Rand) string { return "glsa_" + random(r, alnum, 32) + "_" + random(r, hexa, 8) }},
	{"jwt", func(r *rand.Rand) string {
		enc := base64.RawURLEncoding.EncodeToString
		return enc([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc([]byte(`{"sub":"`+random(r, alnum, 12)+`"}`)) + "." + random(r, word, 43)
	}},
}

// frames are how a key may stand in a text.
var frames = []string{"%s", "the key is %s, keep it", "(%s)", "`%s`", "\"%s\"", "%s\n", "x=%s&y=1", "export K=%s", `{"a":"%s"}`, `{\"a\":\"%s\"}`, "https://h/p?k=%s", "line\\n%s\\nline", "%s;", "<k>%s</k>", "a,%s,b", "K%%3D%s"}

func TestKeysWithAKnownBeginning(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for i, g := range generated {
		for range 20 {
			key := g.make(r)
			for _, frame := range frames {
				text := fmt.Sprintf(frame, key)
				got := masked(text)
				// Nothing of the key but its public beginning is left.
				if strings.Contains(got, key[len(key)-12:]) || strings.Contains(got, key[len(key)/2:len(key)/2+8]) {
					t.Fatalf("%d %s in %q: %q", i, g.rule, text, got)
				}
				if !strings.Contains(find(text), g.rule+"=") {
					t.Fatalf("%d %s in %q: found %s", i, g.rule, text, find(text))
				}
			}
		}
	}
}

func TestAWSSecretsBesideTheirID(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 200 {
		id, secret := "AKIA"+random(r, base32, 16), random(r, base64s, 40)
		for _, text := range []string{id + " " + secret, "id " + id + "\nsecret " + secret, secret + "\n" + id, id + "," + secret, fmt.Sprintf("[%q, %q]", id, secret)} {
			if got := masked(text); strings.Contains(got, secret[20:]) || strings.Contains(got, id[8:]) {
				t.Fatalf("%q became %q", text, got)
			}
		}
		for _, name := range []string{"aws_secret_access_key = %s", "AWS_SECRET_ACCESS_KEY=%s", `"SecretAccessKey": "%s"`} {
			if got := masked(fmt.Sprintf(name, secret)); strings.Contains(got, secret[20:]) {
				t.Fatal(got)
			}
		}
	}
	// A hash beside an id is no secret.
	id := "AKIA" + random(r, base32, 16)
	hash := random(r, hexa, 40)
	if got := masked(id + " " + hash); !strings.Contains(got, hash) {
		t.Error(got)
	}
}

// privateKeys are real ones, made for the test.
func privateKeys(t testing.TB) map[string]string {
	keys := map[string]string{}
	add := func(kind string, der []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		keys[kind] = string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	rk, err := rsa.GenerateKey(nil, 2048)
	if err != nil {
		t.Fatal(err)
	}
	add("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rk), nil)
	ek, err := ecdsa.GenerateKey(elliptic.P256(), nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(ek)
	add("EC PRIVATE KEY", der, err)
	_, dk, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err = x509.MarshalPKCS8PrivateKey(dk)
	add("PRIVATE KEY", der, err)
	add("ENCRYPTED PRIVATE KEY", der, nil)
	add("OPENSSH PRIVATE KEY", append([]byte("openssh-key-v1\x00"), der...), nil)
	add("PGP PRIVATE KEY BLOCK", der, nil)
	add("DSA PRIVATE KEY", der, nil)
	keys["SSH2"] = "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: \"rsa-key\"\n" + base64.StdEncoding.EncodeToString(der) + "\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\n"
	keys["headers"] = strings.Replace(keys["RSA PRIVATE KEY"], "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,D54228DB5838E32589695E83A22595C7\n\n", 1)
	keys["putty"] = "PuTTY-User-Key-File-2: ssh-rsa\nPrivate-Lines: 2\n" + base64.StdEncoding.EncodeToString(dk) + "\nPrivate-MAC: 00\n"
	return keys
}

func TestPrivateKeysInEveryForm(t *testing.T) {
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b[1 : len(b)-1]) }
	for kind, key := range privateKeys(t) {
		body := strings.Split(strings.TrimSpace(key), "\n")
		last := body[len(body)-2]
		if kind == "putty" {
			last = body[2]
		}
		for form, text := range map[string]string{
			"plain":       key,
			"crlf":        strings.ReplaceAll(key, "\n", "\r\n"),
			"in a text":   "here it is:\n" + key + "thanks",
			"escaped":     quote(key),
			"twice":       quote(quote(key)),
			"one line":    strings.ReplaceAll(key, "\n", " "),
			"indented":    "    " + strings.ReplaceAll(key, "\n", "\n    "),
			"quoted mail": "> " + strings.ReplaceAll(key, "\n", "\n> "),
			"go source":   `"` + strings.ReplaceAll(key, "\n", "\\n\"\n+ \"") + `"`,
		} {
			if kind == "putty" && (form == "one line" || form == "go source" || form == "quoted mail") {
				continue
			}
			got := masked(text)
			if strings.Contains(got, last[:min(20, len(last))]) {
				t.Errorf("%s, %s: its last line is left in %q", kind, form, got)
			}
		}
		if kind == "putty" {
			continue
		}
		// Cut off anywhere behind its headers.
		for n := strings.Index(key, last) + 30; n < len(key); n += 17 {
			got := masked(key[:n])
			if i := strings.Index(got, "****"); i < 0 || len(got)-i > 4+1+70 || strings.Contains(got, last[:20]) {
				t.Errorf("%s, cut at %d: %q", kind, n, got)
			}
		}
		// In base64, at every alignment, in one piece and in lines.
		for before := range 3 {
			enc := base64.StdEncoding.EncodeToString([]byte("xyz"[:before] + key))
			for _, text := range []string{enc, "data: " + enc + " end", `{"k":"` + enc + `"}`, group(enc, "\n", 76), enc[:len(enc)/2]} {
				if kind == "SSH2" {
					continue // four hyphens and a space: other characters
				}
				got := masked(text)
				if strings.Contains(got, enc[64:80]) || len(enc) > 200 && strings.Contains(got, enc[len(enc)/2-20:len(enc)/2-2]) {
					t.Errorf("%s in base64, %d before: %q", kind, before, got)
				}
			}
		}
	}
	for _, text := range []string{"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----", base64.StdEncoding.EncodeToString([]byte("-----BEGIN CERTIFICATE-----\nMIIB")), "----------", "-----BEGIN PRIVATE"} {
		if got := find(text); got != "" {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestWireGuardKeys(t *testing.T) {
	for range 50 {
		k, err := ecdh.X25519().GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		raw := k.Bytes()
		raw[0] &= 248
		raw[31] = raw[31]&127 | 64 // as wg genkey does
		key := base64.StdEncoding.EncodeToString(raw)
		for _, text := range []string{key, key + "\n", "PrivateKey = " + key, "[Interface]\nPrivateKey=" + key + "\nAddress = 10.0.0.2/32", "PresharedKey = " + key, `{"private_key":"` + key + `"}`} {
			if got := masked(text); strings.Contains(got, key[10:30]) {
				t.Errorf("%q became %q", text, got)
			}
		}
		if text := "PublicKey = " + base64.StdEncoding.EncodeToString(k.PublicKey().Bytes()); masked(text) != text {
			t.Errorf("%q became %q", text, masked(text))
		}
	}
}

func TestSecretsInText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"password=hunter2", "password=****"}, {"password: hunter2", "password: ****"}, {"password => hunter2", "password => ****"}, {"'password' => 'hunter2'", "'password' => '****'"},
		{"password = a", "password = ****"}, {"PASSWORD=hunter2 USER=bob", "PASSWORD=**** USER=bob"}, {"dbPassword: \"x y z\", next", "dbPassword: \"****\", next"},
		{"api_key=abc&page=2", "api_key=****&page=2"}, {"API key: abc", "API key: ****"}, {"X-Api-Key: abc", "X-Api-Key: ****"}, {"apiKey:\"abc\"", "apiKey:\"****\""},
		{`{"token":"abc","n":1}`, `{"token":"****","n":1}`}, {`{\"token\":\"abc\",\"n\":1}`, `{\"token\":\"****\",\"n\":1}`}, {`{\\\"token\\\":\\\"abc\\\"}`, `{\\\"token\\\":\\\"****\\\"}`},
		{`"password": "a\"b"`, `"password": "****"`}, {`"passwords": ["a", "b"]`, `"passwords": ["****", "****"]`},
		{"Authorization: Bearer abc.def", "Authorization: Bearer ****"}, {"authorization: Basic dTpw\nHost: h", "authorization: Basic ****\nHost: h"}, {`-H "Authorization: token abc"`, `-H "Authorization: token ****"`},
		{"Cookie: a=b; c=d\nHost: h", "Cookie: ****\nHost: h"}, {"Set-Cookie: sid=1; Path=/", "Set-Cookie: ****"},
		{"postgres://u:p%40ss@h:5432/d", "postgres://u:****@h:5432/d"}, {"mongodb+srv://u:p@ss@h/d", "mongodb+srv://u:****@h/d"}, {"redis://:secret@h", "redis://:****@h"}, {"https://h:8080/a@b", "https://h:8080/a@b"},
		{"Server=h;User Id=u;Password=p w;Database=d", "Server=h;User Id=u;Password=**** w;Database=d"},
		{"AccountName=n;AccountKey=YWJjZGVm==;E=x", "AccountName=n;AccountKey=****;E=x"},
		{"curl -u bob:hunter2 h", "curl -u bob:**** h"}, {"curl --user 'bob:hunter 2' h", "curl --user 'bob:****' h"},
		{"export OPENAI_API_KEY=abc", "export OPENAI_API_KEY=****"}, {"passphrase: correct horse battery", "passphrase: ****"},
		{"https://hooks.slack.com/services/T00000000/B00000000/abcdefghijkl", "https://hooks.slack.com/services/****"},
		{"https://discord.com/api/webhooks/123456789012345678/abc-DEF_ghi", "https://discord.com/api/webhooks/****"},
		{"https://x.webhook.office.com/webhookb2/0a1b2c3d-0000-0000-0000-000000000000@1/IncomingWebhook/0a", "https://x.webhook.office.com/webhookb2/****"},
		{"if password == 'hunter2'", "if password == '****'"}, {"password%3Dhunter2", "password%3Dhunter2"},
		{"mysql --password hunter2 --user bob", "mysql --password **** --user bob"}, {"x --api-key 'a b'", "x --api-key '****'"}, {"x --token --verbose", "x --token --verbose"}, {"x --max-tokens 100", "x --max-tokens 100"},
		// Not secrets: what holds none, or is called alike.
		{"password: null", "password: null"}, {"password=${PW}", "password=${PW}"}, {"password=$DB_PASSWORD", "password=$DB_PASSWORD"}, {"token: <token>", "token: <token>"}, {"password=****", "password=****"}, {`"password": ""`, `"password": ""`},
		{"next_page_token: abc", "next_page_token: abc"}, {"max_tokens: 100", "max_tokens: 100"}, {"total tokens: 9", "total tokens: 9"}, {"PWD=/home/x", "PWD=/home/x"}, {"public_key: abc", "public_key: abc"}, {"tokenizer: bpe", "tokenizer: bpe"}, {"pass: 12", "pass: 12"}, {"at 10:53:45", "at 10:53:45"}, {"a=b", "a=b"},
		{"sk-learn-contrib-estimators-and-more", "sk-learn-contrib-estimators-and-more"}, {"hf_servingcellpriorityparametersdescription", "hf_servingcellpriorityparametersdescription"},
	} {
		if got := masked(c.text); got != c.want {
			t.Errorf("%q became %q, not %q", c.text, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for rule, names := range map[string]string{
		"card":          "card_number cardNumber CardNumber CARD-NUMBER card cc pan ccNum credit_card user_card_number payment.card.number primaryAccountNumber creditcardnumber",
		"cvv":           "cvv CVV2 cvc card_cvc security_code cardSecurityCode csc cid",
		"pin":           "pin PIN card_pin pinBlock",
		"track":         "track1 track_2 trackData magstripe track2EquivalentData",
		"password":      "password Password userPassword db_password passwd pwd PASSWORD2 password_confirm password-hash dbpassword passphrase",
		"secret":        "secret client_secret clientSecret token access_token accessToken authToken api_key apiKey APIKey api-key x-api-key OPENAI_API_KEY authorization Authorization proxy-authorization private_key secretAccessKey aws_secret_access_key mytoken csrf_token",
		"cookie":        "cookie Cookie set-cookie Set_Cookie cookies",
		"us_ssn":        "ssn SSN social_security_number",
		"date_of_birth": "dob DOB date_of_birth dateOfBirth birthDate birth-date",
	} {
		for name := range strings.FieldsSeq(names) {
			if k, ok := detect.Default().Name([]byte(name)); !ok || k.Rule != rule {
				t.Errorf("%s: %q %v, not %s", name, k.Rule, ok, rule)
			}
		}
	}
	for name := range strings.FieldsSeq("user_id session agent_id name tokens max_tokens token_count next_page_token nextToken tokenizer wildcard_match discards japan timespan public_key primaryKey secretary passenger compass pinned spin accuracy accent broken bcc action timestamp event_type duration_ms a 1 _ -") {
		if k, ok := detect.Default().Name([]byte(name)); ok {
			t.Errorf("%s is taken for %s", name, k.Rule)
		}
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"card_number", "4532-1234-5678-9012", "****9012"}, {"pan", "1234567890", "****7890"}, {"card", "4532 1234 5678 9012", "****9012"}, {"card", "4111111111111111, exp 12/27", "****1111, exp 12/27"},
		{"card_number", "4532_1234_5678_9012", "****9012"}, {"card_number", "4532.1234.5678.9012", "****9012"}, {"card_number", "4532  1234  5678  9012", "****9012"}, {"card", "number 4532-1234-5678-9012", "number ****9012"}, {"card_number", "4111 1111 1111 1111 123", "****1111 123"},
		{"card", "visa", "visa"}, {"cc", "bob@example.com", "bob@example.com"}, {"card", "12/27", "12/27"}, {"card_number", "****9012", "****9012"},
		{"cvv", "123", "****"}, {"cvv", "match", "match"}, {"pin", "1234", "****"}, {"pin", "0123456789ABCDEF", "****"}, {"track2", ";4111111111111111=2712101?", "****"},
		{"password", "a", "****"}, {"password", "12345", "****"}, {"password", "two words", "****"}, {"password", "", ""}, {"password", "****", "****"}, {"authorization", "Bearer abc", "Bearer ****"}, {"cookie", "a=b; c", "****"}, {"pwd", "/home/x", "/home/x"}, {"pwd", "hunter2", "****"}, {"pass", "5", "5"}, {"secret", "4111111111111111", "****"},
	} {
		k, ok := detect.Default().Name([]byte(c.name))
		if !ok {
			t.Fatal(c.name)
		}
		if got := mask(c.text, detect.Default().Value(nil, k, []byte(c.text))); got != c.want {
			t.Errorf("%s: %q became %q, not %q", c.name, c.text, got, c.want)
		}
	}
}

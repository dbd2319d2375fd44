// Package tsatest runs an authority for timestamps in tests: openssl ts, which is
// one, behind a server of the loopback interface.
package tsatest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TSA is a running authority.
type TSA struct {
	URL    string
	CAFile string
	// Answer, if set, changes an answer.
	Answer func([]byte) []byte
}

// New starts one that ends with the test. kind is the key's: "rsa" or "ecdsa". Without
// openssl the test is skipped.
func New(t testing.TB, kind string) *TSA {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("skipped: no openssl on this machine; timestamps were not tested")
	}
	dir := t.TempDir()
	tsa := &TSA{CAFile: filepath.Join(dir, "ca.pem")}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	ca := template("test root", 1)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	fatal(t, err)
	write(t, tsa.CAFile, "CERTIFICATE", caDER)
	var key crypto.Signer
	if kind == "rsa" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	fatal(t, err)
	cert := template("test authority", 2)
	cert.KeyUsage = x509.KeyUsageDigitalSignature
	// RFC 3161 §2.3: this use alone, and critical.
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	fatal(t, err)
	cert.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), caKey)
	fatal(t, err)
	write(t, filepath.Join(dir, "tsa.pem"), "CERTIFICATE", der)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(t, err)
	write(t, filepath.Join(dir, "tsa.key"), "PRIVATE KEY", private)
	fatal(t, os.WriteFile(filepath.Join(dir, "serial"), []byte("01\n"), 0o600))
	config := fmt.Sprintf("[tsa]\ndefault_tsa = a\n[a]\nserial = %[1]s/serial\nsigner_cert = %[1]s/tsa.pem\ncerts = %[1]s/ca.pem\nsigner_key = %[1]s/tsa.key\nsigner_digest = sha256\ndefault_policy = 1.2.3.4.1\ndigests = sha256\naccuracy = secs:1\nordering = no\ness_cert_id_chain = no\ness_cert_id_alg = sha256\n", dir)
	fatal(t, os.WriteFile(filepath.Join(dir, "tsa.cnf"), []byte(config), 0o600))
	var one sync.Mutex // openssl keeps a serial number in a file
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		defer one.Unlock()
		query, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		in, out := filepath.Join(dir, "query"), filepath.Join(dir, "reply")
		if err == nil {
			err = os.WriteFile(in, query, 0o600)
		}
		if err == nil {
			err = exec.CommandContext(r.Context(), openssl, "ts", "-reply", "-queryfile", in, "-config", filepath.Join(dir, "tsa.cnf"), "-out", out).Run()
		}
		var reply []byte
		if err == nil {
			reply, err = os.ReadFile(out)
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if tsa.Answer != nil {
			reply = tsa.Answer(reply)
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		_, _ = w.Write(reply)
	}))
	t.Cleanup(server.Close)
	tsa.URL = server.URL
	return tsa
}

func template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func write(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	fatal(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

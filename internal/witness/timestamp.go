package witness

import (
	"bytes"
	"crypto"
	"crypto/rand"
	_ "crypto/sha1" // ESSCertID (RFC 2634) names a certificate by it; nothing rests on it alone
	"crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Object identifiers of RFC 3161, RFC 5652, RFC 5035 and RFC 5754.
var (
	oidSignedData   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidDigest       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidCertificate  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	oidCertificate2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidSHA256       = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

var hashes = map[string]crypto.Hash{
	"1.3.14.3.2.26": crypto.SHA1, oidSHA256.String(): crypto.SHA256,
	"2.16.840.1.101.3.4.2.2": crypto.SHA384, "2.16.840.1.101.3.4.2.3": crypto.SHA512,
}

// algorithms are the signatures that are taken: by their own identifier, or as RSA
// with a digest. None is with SHA-1.
var algorithms = map[string]x509.SignatureAlgorithm{
	"1.2.840.113549.1.1.11": x509.SHA256WithRSA, "1.2.840.113549.1.1.12": x509.SHA384WithRSA, "1.2.840.113549.1.1.13": x509.SHA512WithRSA,
	"1.2.840.10045.4.3.2": x509.ECDSAWithSHA256, "1.2.840.10045.4.3.3": x509.ECDSAWithSHA384, "1.2.840.10045.4.3.4": x509.ECDSAWithSHA512,
	"1.3.101.112": x509.PureEd25519,
}

var rsaWith = map[crypto.Hash]x509.SignatureAlgorithm{
	crypto.SHA256: x509.SHA256WithRSA, crypto.SHA384: x509.SHA384WithRSA, crypto.SHA512: x509.SHA512WithRSA,
}

const oidRSA = "1.2.840.113549.1.1.1"

type messageImprint struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

// timeStampReq is RFC 3161 §2.4.1.
type timeStampReq struct {
	Version int
	Imprint messageImprint
	Nonce   *big.Int
	CertReq bool
}

// timeRequest asks for a time for data.
func timeRequest(data []byte) (request []byte, nonce *big.Int, err error) {
	if nonce, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64)); err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(data)
	request, err = asn1.Marshal(timeStampReq{
		Version: 1, Nonce: nonce, CertReq: true,
		Imprint: messageImprint{pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}, sum[:]},
	})
	return request, nonce, err
}

// timeStampResp is RFC 3161 §2.4.2.
type timeStampResp struct {
	Status struct {
		Status int
		Text   []asn1.RawValue `asn1:"optional,omitempty"`
		Fail   asn1.BitString  `asn1:"optional"`
	}
	Token contentInfo `asn1:"optional"`
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"explicit,tag:0"`
}

// signedData is RFC 5652 §5.1.
type signedData struct {
	Version      int
	Digests      []pkix.AlgorithmIdentifier `asn1:"set"`
	Encapsulated struct {
		Type    asn1.ObjectIdentifier
		Content []byte `asn1:"explicit,tag:0"`
	}
	Certificates asn1.RawValue `asn1:"optional,tag:0"`
	CRLs         asn1.RawValue `asn1:"optional,tag:1"`
	Signers      []signerInfo  `asn1:"set"`
}

type signerInfo struct {
	Version    int
	Issuer     asn1.RawValue // or the key's id, by version; the certificate is named by an attribute
	Digest     pkix.AlgorithmIdentifier
	Attributes asn1.RawValue `asn1:"tag:0"` // a timestamp's are signed (RFC 3161 §2.4.2)
	Algorithm  pkix.AlgorithmIdentifier
	Signature  []byte
	Unsigned   asn1.RawValue `asn1:"optional,tag:1"`
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// tstInfo is RFC 3161 §2.4.2, as far as it is looked at.
type tstInfo struct {
	Version  int
	Policy   asn1.ObjectIdentifier
	Imprint  messageImprint
	Serial   *big.Int
	Time     time.Time     `asn1:"generalized"`
	Accuracy asn1.RawValue `asn1:"optional"`
	Ordering bool          `asn1:"optional"`
	Nonce    *big.Int      `asn1:"optional"`
	TSA      asn1.RawValue `asn1:"optional,explicit,tag:0"`
	More     asn1.RawValue `asn1:"optional,tag:1"`
}

// ErrToken means that a timestamp proves nothing.
var ErrToken = errors.New("the timestamp does not verify")

func tokenError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrToken, fmt.Sprintf(format, args...))
}

// parse reads one DER value and nothing behind it.
func parse(der []byte, to any) error {
	rest, err := asn1.Unmarshal(der, to)
	if err != nil || len(rest) > 0 {
		return tokenError("malformed")
	}
	return nil
}

// checkToken checks a TimeStampResp over data, and gives its time: the authority's
// certificate chains to roots and is for timestamps, at that time. A nonce is
// compared where there is one.
func checkToken(response, data []byte, nonce *big.Int, roots *x509.CertPool) (at time.Time, err error) {
	var r timeStampResp
	if err := parse(response, &r); err != nil {
		return at, err
	}
	if r.Status.Status > 1 { // granted, granted with modifications
		return at, fmt.Errorf("%w: the authority's status is %d", ErrRefused, r.Status.Status)
	}
	var sd signedData
	if !r.Token.Type.Equal(oidSignedData) {
		return at, tokenError("malformed")
	}
	if err := parse(r.Token.Content.Bytes, &sd); err != nil {
		return at, err
	}
	if len(sd.Signers) != 1 || !sd.Encapsulated.Type.Equal(oidTSTInfo) {
		return at, tokenError("malformed")
	}
	var info tstInfo
	if err := parse(sd.Encapsulated.Content, &info); err != nil {
		return at, err
	}
	sum := sha256.Sum256(data)
	switch {
	case info.Version != 1, !info.Imprint.Algorithm.Algorithm.Equal(oidSHA256):
		return at, tokenError("of another kind than was asked for")
	case !bytes.Equal(info.Imprint.Digest, sum[:]):
		return at, tokenError("it is of another checkpoint")
	case nonce != nil && (info.Nonce == nil || info.Nonce.Cmp(nonce) != 0):
		return at, tokenError("it answers another request")
	}
	certs, err := x509.ParseCertificates(sd.Certificates.Bytes)
	if err != nil || len(certs) == 0 {
		return at, tokenError("its certificates can't be read")
	}
	cert, err := sd.Signers[0].check(sd.Encapsulated.Content, certs)
	if err != nil {
		return at, err
	}
	between := x509.NewCertPool()
	for _, c := range certs {
		between.AddCert(c)
	}
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: info.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}})
	if err != nil {
		return at, fmt.Errorf("%w: certificate: %w", ErrToken, err)
	}
	return info.Time.UTC(), nil
}

// check checks the signature over the content, by one of certs, which it gives.
func (s *signerInfo) check(content []byte, certs []*x509.Certificate) (*x509.Certificate, error) {
	// What is signed is the set of attributes with the tag of a set (RFC 5652 §5.4).
	signed := bytes.Clone(s.Attributes.FullBytes)
	if len(signed) == 0 {
		return nil, tokenError("malformed")
	}
	signed[0] = asn1.TagSet | 0x20
	var attributes []attribute
	for rest := s.Attributes.Bytes; len(rest) > 0; {
		var a attribute
		var err error
		if rest, err = asn1.Unmarshal(rest, &a); err != nil || len(a.Values) != 1 {
			return nil, tokenError("malformed")
		}
		attributes = append(attributes, a)
	}
	hash := hashes[s.Digest.Algorithm.String()]
	if hash == 0 || hash == crypto.SHA1 {
		return nil, tokenError("its digest is of no kind that is taken")
	}
	h := hash.New()
	h.Write(content)
	want := h.Sum(nil)
	var kind asn1.ObjectIdentifier
	var digest []byte
	var cert *x509.Certificate
	for _, a := range attributes {
		var err error
		switch {
		case a.Type.Equal(oidContentType):
			err = parse(a.Values[0].FullBytes, &kind)
		case a.Type.Equal(oidDigest):
			err = parse(a.Values[0].FullBytes, &digest)
		case a.Type.Equal(oidCertificate), a.Type.Equal(oidCertificate2):
			cert, err = named(a, certs)
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case !kind.Equal(oidTSTInfo), !bytes.Equal(digest, want):
		return nil, tokenError("its digest is not of its content")
	case cert == nil:
		return nil, tokenError("it does not name its certificate")
	}
	algorithm := algorithms[s.Algorithm.Algorithm.String()]
	if s.Algorithm.Algorithm.String() == oidRSA {
		algorithm = rsaWith[hash]
	}
	if algorithm == x509.UnknownSignatureAlgorithm {
		return nil, tokenError("its signature is of no kind that is taken")
	}
	if cert.CheckSignature(algorithm, signed, s.Signature) != nil {
		return nil, tokenError("its signature is wrong")
	}
	return cert, nil
}

// named is the certificate that an attribute names first (RFC 2634 §5.4, RFC 5035
// §4): the signer's.
func named(a attribute, certs []*x509.Certificate) (*x509.Certificate, error) {
	var list struct {
		Certs    []asn1.RawValue
		Policies asn1.RawValue `asn1:"optional"`
	}
	if err := parse(a.Values[0].FullBytes, &list); err != nil || len(list.Certs) == 0 {
		return nil, tokenError("malformed")
	}
	hash, digest := crypto.SHA1, []byte(nil)
	for rest, first := list.Certs[0].Bytes, true; len(rest) > 0; first = false {
		var v asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &v); err != nil {
			return nil, tokenError("malformed")
		}
		if first && a.Type.Equal(oidCertificate2) {
			hash = crypto.SHA256 // the default
			if v.Tag == asn1.TagSequence {
				var id pkix.AlgorithmIdentifier
				if err := parse(v.FullBytes, &id); err != nil {
					return nil, err
				}
				hash = hashes[id.Algorithm.String()]
				continue
			}
		}
		if v.Tag == asn1.TagOctetString {
			digest = v.Bytes
			break
		}
	}
	if hash == 0 {
		return nil, tokenError("it names its certificate by no digest that is known")
	}
	for _, c := range certs {
		h := hash.New()
		h.Write(c.Raw)
		if bytes.Equal(h.Sum(nil), digest) {
			return c, nil
		}
	}
	return nil, tokenError("its certificate is not among those that it has")
}

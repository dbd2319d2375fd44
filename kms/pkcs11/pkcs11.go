// Package pkcs11 has a trail's KEK in a hardware security module, or whatever else
// speaks PKCS#11 (OASIS, version 2.40): an AES-256 key that never leaves it. Secrets
// are wrapped by CKM_AES_GCM, bound to their place.
//
// Each erasure epoch has a key object of its own, which [KEK.DestroyEpoch] destroys in
// the module. It needs cgo.
package pkcs11

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/kaizen-audit/kaizen-audit/kms"
)

// Options say where the key is.
type Options struct {
	// Module is the path of the module's shared library.
	Module string
	// Token is the label of the token, Object that of the key in it.
	Token, Object string
	// PIN gives the user's PIN when a session is opened.
	PIN func() (string, error)
	// Create makes the key where the token has none of that label.
	Create bool
}

// Parse reads a URI of RFC 7512: pkcs11:token=T;object=O?module-path=P&pin-source=F.
// The PIN is in the file F, or where that is not said in the environment as
// KAIZEN_AUDIT_PIN; in the URI (pin-value) it is refused. create=yes, which is ours,
// makes the key where there is none.
func Parse(text string) (*Options, error) {
	const want = "key URL: want pkcs11:token=TOKEN;object=KEY?module-path=LIBRARY&pin-source=FILE"
	rest, ok := strings.CutPrefix(text, "pkcs11:")
	path, query, _ := strings.Cut(rest, "?")
	if !ok {
		return nil, errors.New(want)
	}
	o := &Options{PIN: pinOfEnvironment}
	set := func(attribute string) error {
		name, value, _ := strings.Cut(attribute, "=")
		value, err := url.PathUnescape(value)
		if err != nil || value == "" {
			return errors.New(want)
		}
		switch name {
		case "token":
			o.Token = value
		case "object":
			o.Object = value
		case "type":
			if value != "secret-key" {
				return errors.New("key URL: the key is a secret-key")
			}
		case "module-path":
			o.Module = value
		case "pin-source":
			file := strings.TrimPrefix(value, "file:")
			o.PIN = func() (string, error) { return pinOfFile(file) }
		case "pin-value":
			return errors.New("key URL: a PIN does not stand in a URL: name its file by pin-source")
		case "create":
			o.Create = value == "yes"
		default:
			return errors.New("key URL: only token, object, type, module-path, pin-source and create are known")
		}
		return nil
	}
	for _, a := range append(strings.Split(path, ";"), strings.FieldsFunc(query, func(r rune) bool { return r == '&' })...) {
		if err := set(a); err != nil {
			return nil, err
		}
	}
	if o.Token == "" || o.Object == "" || o.Module == "" {
		return nil, errors.New(want)
	}
	return o, nil
}

func pinOfEnvironment() (string, error) {
	if pin := os.Getenv("KAIZEN_AUDIT_PIN"); pin != "" {
		return pin, nil
	}
	return "", errors.New("pkcs11: no PIN: name its file by pin-source, or set KAIZEN_AUDIT_PIN")
}

func pinOfFile(name string) (string, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("pkcs11: PIN: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("pkcs11: PIN: others may read %s: chmod 600", name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("pkcs11: PIN: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// KEK is a key in a PKCS#11 module. It is a kms.EpochDestroyer, and safe for
// concurrent use.
type KEK struct {
	o   Options
	id  string
	mu  sync.Mutex
	ctx *pkcs11.Ctx
	in  pkcs11.SessionHandle
}

// Open loads the module, logs in and finds the key.
func Open(o Options) (*KEK, error) {
	k := &KEK{o: o}
	if k.ctx = pkcs11.New(o.Module); k.ctx == nil {
		return nil, fmt.Errorf("pkcs11: the module %s can't be loaded", o.Module)
	}
	if err := k.ctx.Initialize(); err != nil && !is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		k.ctx.Destroy()
		return nil, fmt.Errorf("pkcs11: initialize: %w", err)
	}
	err := k.login()
	if err == nil {
		err = k.find(o.Create)
	}
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func is(err error, code uint) bool {
	var e pkcs11.Error
	return errors.As(err, &e) && uint(e) == code
}

// login opens a session at the token.
func (k *KEK) login() error {
	slots, err := k.ctx.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("pkcs11: slots: %w", err)
	}
	for _, slot := range slots {
		info, err := k.ctx.GetTokenInfo(slot)
		if err != nil || strings.TrimRight(info.Label, " \x00") != k.o.Token {
			continue
		}
		if k.in, err = k.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err != nil {
			return fmt.Errorf("pkcs11: session: %w", err)
		}
		pin, err := k.o.PIN()
		if err != nil {
			return err
		}
		if err := k.ctx.Login(k.in, pkcs11.CKU_USER, pin); err != nil && !is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
			return fmt.Errorf("pkcs11: log in: %w", err)
		}
		return nil
	}
	return fmt.Errorf("pkcs11: there is no token %q", k.o.Token)
}

// find finds the key, and its id: of what it makes of a block that is no other's.
func (k *KEK) find(create bool) error {
	key, err := k.object(k.o.Object, create)
	if err != nil {
		return err
	}
	block := sha256.Sum256([]byte("kaizen-audit/pkcs11-check/v1"))
	if err := k.ctx.EncryptInit(k.in, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_ECB, nil)}, key); err != nil {
		return fmt.Errorf("pkcs11: check: %w", err)
	}
	check, err := k.ctx.Encrypt(k.in, block[:16])
	if err != nil {
		return fmt.Errorf("pkcs11: check: %w", err)
	}
	k.id = kms.IDOf("pkcs11", string(check))
	return nil
}

var errNoObject = fmt.Errorf("%w: the token has no such key", kms.ErrNoKey)

// objects are the keys of a label.
func (k *KEK) objects(label string) ([]pkcs11.ObjectHandle, error) {
	if err := k.ctx.FindObjectsInit(k.in, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	}); err != nil {
		return nil, fmt.Errorf("pkcs11: find key: %w", err)
	}
	found, _, err := k.ctx.FindObjects(k.in, 16)
	if err = errors.Join(err, k.ctx.FindObjectsFinal(k.in)); err != nil {
		return nil, fmt.Errorf("pkcs11: find key: %w", err)
	}
	return found, nil
}

// object is the one key of a label, made if create and there is none.
func (k *KEK) object(label string, create bool) (pkcs11.ObjectHandle, error) {
	found, err := k.objects(label)
	switch {
	case err != nil:
		return 0, err
	case len(found) > 1:
		return 0, fmt.Errorf("pkcs11: %d keys are called %s", len(found), label)
	case len(found) == 1:
		return found[0], nil
	case !create:
		return 0, errNoObject
	}
	key, err := k.ctx.GenerateKey(k.in, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
	})
	if err != nil {
		return 0, fmt.Errorf("pkcs11: make key: %w", err)
	}
	return key, nil
}

// ID is of the key itself, wherever it lies.
func (k *KEK) ID() string { return k.id }

// By is the key's URI, without what leads to the PIN.
func (k *KEK) By() string {
	return "pkcs11:token=" + url.PathEscape(k.o.Token) + ";object=" + url.PathEscape(k.o.Object)
}

// labelOf is the label of the key for a place: an epoch has one of its own.
func (k *KEK) labelOf(p kms.Place) string {
	if p.Purpose != kms.PurposeEpoch {
		return k.o.Object
	}
	origin := sha256.Sum256([]byte(p.Origin))
	return k.o.Object + "-epoch-" + hex.EncodeToString(origin[:6]) + "-" + p.Name
}

const (
	ivSize  = 12
	tagBits = 128
)

// retry calls f, and once more in a new session where the module has lost this one.
func (k *KEK) retry(f func() error) error {
	err := f()
	for _, lost := range []uint{pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_DEVICE_REMOVED} {
		if is(err, lost) {
			if again := k.login(); again != nil {
				return errors.Join(err, again)
			}
			return f()
		}
	}
	return err
}

// Wrap has the module encrypt a secret for a place.
func (k *KEK) Wrap(_ context.Context, p kms.Place, secret []byte) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	iv := make([]byte, ivSize)
	_, _ = rand.Read(iv) // never fails
	out := ""
	err := k.retry(func() error {
		key, err := k.object(k.labelOf(p), p.Purpose == kms.PurposeEpoch)
		if err != nil {
			return err
		}
		params := pkcs11.NewGCMParams(iv, p.Bytes(), tagBits)
		defer params.Free()
		if err := k.ctx.EncryptInit(k.in, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
			return fmt.Errorf("pkcs11: wrap: %w", err)
		}
		box, err := k.ctx.Encrypt(k.in, secret)
		if err != nil {
			return fmt.Errorf("pkcs11: wrap: %w", err)
		}
		used := params.IV() // some modules choose it themselves
		if len(used) != ivSize {
			used = iv
		}
		out = base64.RawURLEncoding.EncodeToString(append(append([]byte{}, used...), box...))
		return nil
	})
	return out, err
}

// Unwrap is the reverse.
func (k *KEK) Unwrap(_ context.Context, p kms.Place, wrapped string) ([]byte, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(wrapped)
	if err != nil || len(data) < ivSize+tagBits/8 {
		return nil, kms.ErrWrongKey
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var secret []byte
	err = k.retry(func() error {
		key, err := k.object(k.labelOf(p), false)
		if errors.Is(err, errNoObject) {
			return fmt.Errorf("%w: its key is gone", kms.ErrWrongKey)
		}
		if err != nil {
			return err
		}
		params := pkcs11.NewGCMParams(data[:ivSize], p.Bytes(), tagBits)
		defer params.Free()
		if err := k.ctx.DecryptInit(k.in, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
			return fmt.Errorf("pkcs11: unwrap: %w", err)
		}
		if secret, err = k.ctx.Decrypt(k.in, data[ivSize:]); err == nil {
			return nil
		}
		for _, bad := range []uint{pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_GENERAL_ERROR} {
			if is(err, bad) { // SoftHSM says the last of a tag that is another
				return fmt.Errorf("%w: it does not open", kms.ErrWrongKey)
			}
		}
		return fmt.Errorf("pkcs11: unwrap: %w", err)
	})
	return secret, err
}

// DestroyEpoch destroys the key object of an epoch in the module.
func (k *KEK) DestroyEpoch(_ context.Context, p kms.Place) error {
	p.Purpose = kms.PurposeEpoch
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.retry(func() error {
		found, err := k.objects(k.labelOf(p))
		if err != nil {
			return err
		}
		for _, key := range found {
			if err := k.ctx.DestroyObject(k.in, key); err != nil {
				return fmt.Errorf("pkcs11: destroy key of epoch: %w", err)
			}
		}
		return nil
	})
}

// Close ends the session. The module stays loaded: others in this process may use it.
func (k *KEK) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.in == 0 {
		return nil
	}
	err := k.ctx.CloseSession(k.in)
	k.in = 0
	if err != nil {
		return fmt.Errorf("pkcs11: close: %w", err)
	}
	return nil
}

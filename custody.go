package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/signing"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// signingKeys is where the keys are that sign the trail: a file in keys/, or a signer,
// another process.
type signingKeys interface {
	// Keys are those there are, one or two, in the order in which they were made.
	Keys() ([]signing.Key, error)
	// Make makes another one beside the one that is there.
	Make() (signing.Key, error)
	// Keep deletes every key but one.
	Keep(vkey string) error
	// Checkpoint signs a tree head by those keys.
	Checkpoint(c tree.Checkpoint, by []signing.Key, prove signing.Prove) (tree.Checkpoint, error)
}

// signerFile is keys/signer.json: the trail's signing key is with a signer, and which.
type signerFile struct {
	Format int    `json:"format"`
	URL    string `json:"url"`
}

const signerName = "signer.json"

// signerURL is the signer of the trail as its files name it; empty where its key lies
// in keys/.
func (t *Trail) signerURL() (string, error) {
	data, err := durable.ReadFile(t.opts.fs, filepath.Join(t.dir, "keys", signerName), maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return parseSignerFile(data)
}

func parseSignerFile(data []byte) (string, error) {
	var f signerFile
	if json.Unmarshal(data, &f) != nil {
		return "", fmt.Errorf("%w: keys/%s: not the JSON that is expected", ErrDamaged, signerName)
	}
	if f.Format != formatVersion {
		return "", fmt.Errorf("keys/%s: format %d, this program knows %d", signerName, f.Format, formatVersion)
	}
	if _, err := signing.ParseURL(f.URL); err != nil {
		return "", fmt.Errorf("%w: keys/%s: %w", ErrDamaged, signerName, err)
	}
	return f.URL, nil
}

// findSigningKeys finds where the keys of a trail are that is there. Options.Signer is
// where the signer is now, if it has moved or keys/ was lost.
func (t *Trail) findSigningKeys() (signingKeys, error) {
	url, err := t.signerURL()
	if err != nil {
		return nil, err
	}
	if t.opts.Signer != "" {
		if _, err := t.opts.fs.Stat(t.signingFile()); err == nil {
			return nil, optionError("Signer", "the trail's signing key is in keys/signing.key: where it is, is chosen when a trail is made")
		}
		url = t.opts.Signer
	}
	if url == "" {
		return signing.NewFile(t.opts.fs, t.signingFile()), nil
	}
	return signing.NewRemote(url)
}

func (t *Trail) signingFile() string { return filepath.Join(t.dir, "keys", "signing.key") }

// makeSigningKey makes the key of a trail that is being made, or takes that of its
// signer, and gives the file of keys/ that says which.
func (t *Trail) makeSigningKey(origin string) (at signingKeys, k signing.Key, name string, text []byte, err error) {
	if t.opts.Signer == "" {
		f := signing.NewFile(t.opts.fs, t.signingFile())
		if k, err = signing.NewKey(origin); err != nil {
			err = optionError("Origin", "it must be a name without spaces and plus signs")
		}
		return f, k, "signing.key", signing.Format(k), err
	}
	r, k, err := freshSigner(t.opts.Signer)
	if err == nil && t.opts.Origin != "" && t.opts.Origin != k.Name() {
		err = optionError("Origin", "the signer is for the trail %s", k.Name())
	}
	if err != nil {
		return nil, k, "", nil, err
	}
	text, err = json.Marshal(signerFile{formatVersion, t.opts.Signer})
	return r, k, signerName, append(text, '\n'), err
}

// freshSigner is a signer that has signed nothing yet, and its key.
func freshSigner(url string) (*signing.Remote, signing.Key, error) {
	r, err := signing.NewRemote(url)
	if err != nil {
		return nil, signing.Key{}, optionError("Signer", "%w", err)
	}
	defer r.Close()
	_, last, err := r.State()
	if err != nil {
		return nil, signing.Key{}, explainSigner(err)
	}
	keys, err := r.Keys()
	if err != nil {
		return nil, signing.Key{}, explainSigner(err)
	}
	if last.Size > 0 || len(keys) != 1 {
		return nil, signing.Key{}, advice.For(fmt.Errorf("the signer at %s has signed a trail already, of %d entries", url, last.Size),
			"a trail has a signer of its own: kaizen-audit signer --state ANOTHER-DIRECTORY --origin NAME")
	}
	return r, keys[0], nil
}

// checkpoint signs a tree head with every key that signs now. latest is the latest
// checkpoint, whose tiles are there, as those of c are.
func (k *keyring) checkpoint(store *tree.Store, size int64, root tree.Hash, latest tree.Checkpoint) (tree.Checkpoint, error) {
	s := k.sign.Load()
	by := []signing.Key{s.current}
	if s.former != nil {
		by = append(by, *s.former)
	}
	c := tree.Checkpoint{Origin: s.current.Name(), Size: size, Root: root}
	signed, err := k.at.Checkpoint(c, by, func(has int64) ([]byte, error) {
		switch {
		case has <= size:
			return store.SigningRequest(has, c, c)
		case has == latest.Size:
			return store.SigningRequest(has, c, latest)
		}
		return nil, fmt.Errorf("%w: its signer has signed %d entries, and here are %d", ErrForked, has, max(size, latest.Size))
	})
	return signed, explainSigner(err)
}

// close lets go of the signer.
func (k *keyring) close() {
	if r, ok := k.at.(*signing.Remote); ok {
		r.Close()
	}
}

// explainSigner says what to do where the signer does not sign.
func explainSigner(err error) error {
	switch {
	case errors.Is(err, signing.ErrAway):
		return advice.For(err, "start it, as its user: kaizen-audit signer --state DIR --listen unix:/PATH; where it is elsewhere now: --signer (docs/keys.md)")
	case errors.Is(err, signing.ErrRefused):
		return advice.For(err, "the signer says on its stderr what it refused, and why (docs/keys.md)")
	}
	return err
}

// compareSigned compares the lines with what the signer has signed last, before
// anything is written. ErrForked: they are not what it has signed, or fewer, so the
// trail was rolled back or written anew.
func (t *Trail) compareSigned(c tree.Checkpoint, store *tree.Store, r *replayed, clean bool) error {
	at, ok := t.keys.at.(*signing.Remote)
	if !ok {
		return nil
	}
	_, last, err := at.State()
	if err != nil {
		return explainSigner(err)
	}
	forked := func(why string) error {
		return advice.For(fmt.Errorf("%w: its signer has signed %d entries, and %s", ErrForked, last.Size, why),
			"find out who has the other history, or why the files here are old (docs/keys.md); to go on in a new trail, with another signer: kaizen-audit init --successor-of %[1]s --log %[1]s --signer unix:/PATH", advice.Quote(t.path))
	}
	switch {
	case last.Origin != t.id.Origin:
		return advice.For(fmt.Errorf("the signer at %s is of the trail %s", at.URL(), last.Origin), "name the trail's own: --signer")
	case last.Size > r.valid:
		return forked(fmt.Sprintf("here are %d", r.valid))
	case last.Size > c.Size && clean:
		return forked(fmt.Sprintf("the trail was closed with %d", c.Size))
	case last.Size > c.Size:
		// The writer ended before it had the answer.
		b := r.builder.Fork()
		b.Append(r.tail[:last.Size-c.Size]...)
		if b.Root() != last.Root {
			return forked("the lines here are others")
		}
	default:
		// A signer of which an old copy was put back has signed less.
		if _, err := store.Consistency(last, c); errors.Is(err, tree.ErrInconsistent) {
			return forked("the lines here are others")
		} else if err != nil {
			return err
		}
		if last.Size < c.Size {
			// The next checkpoint hides it.
			t.warn(fmt.Errorf("the signer at %s has signed %d entries, and the checkpoint has %d: an old copy of its directory was put back", at.URL(), last.Size, c.Size))
		}
	}
	return nil
}

// finishCreation completes the creation of a trail with a signer that was cut off after
// its first line was durable: the signer may have signed that, and signs no other.
func (t *Trail) finishCreation() (bool, error) {
	url, err := t.signerURL()
	if url == "" || err != nil {
		return false, err
	}
	id, _, err := t.readIdentity()
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	text, err := durable.ReadFile(t.opts.fs, t.path, maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	line, whole := bytes.CutSuffix(text, []byte("\n"))
	if err != nil || !whole {
		return false, err
	}
	t.id = id
	at, err := t.findSigningKeys()
	if err != nil {
		return false, err
	}
	s, _, err := t.readSigners(at, id)
	if err != nil {
		return false, err
	}
	t.keys = &keyring{at: at}
	t.keys.sign.Store(s)
	defer t.keys.close()
	b := tree.NewBuilder()
	b.Append(lineDigest(line))
	return true, t.endCreation(tree.NewStore(t.opts.fs, t.dir), b)
}

// SignerInfo is what is known of a trail's signer.
type SignerInfo struct {
	// URL is its socket.
	URL string `json:"url"`
	// UID is the user who has the socket, so the key; -1 where that can't be told.
	UID int `json:"uid"`
	// Size is that of the checkpoint that it has signed last; -1 where it did not say.
	Size int64 `json:"size"`
	// Problem is why it did not say; empty where it did.
	Problem string `json:"problem,omitempty"`
}

// signerInfo asks the signer how it is; nil where the trail has none, or where this
// user may not see that.
func (t *Trail) signerInfo() *SignerInfo {
	url, err := t.signerURL()
	if t.opts.Signer != "" {
		url, err = t.opts.Signer, nil
	}
	if err != nil || url == "" {
		return nil
	}
	i := &SignerInfo{URL: url, UID: -1, Size: -1}
	path, err := signing.ParseURL(url)
	if err == nil {
		var fi os.FileInfo
		if fi, err = os.Stat(path); err == nil {
			i.UID = durable.UserOf(fi)
		}
	}
	var r *signing.Remote
	if err == nil {
		r, err = signing.NewRemote(url)
	}
	if err == nil {
		defer r.Close()
		var last tree.Checkpoint
		if _, last, err = r.State(); err == nil {
			i.Size = last.Size
		}
	}
	if err != nil {
		i.Problem = err.Error()
	}
	return i
}

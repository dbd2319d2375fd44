package audit_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// The key that wraps a trail's keys is replaced, and its keys are backed up.
func ExampleTrail_RotateKEK() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "audit.jsonl")
	was, err := kms.CreateFile(filepath.Join(dir, "audit.key"))
	if err != nil {
		log.Fatal(err)
	}
	next, err := kms.CreateFile(filepath.Join(dir, "next.key"))
	if err != nil {
		log.Fatal(err)
	}
	trail, err := audit.Open(path, &audit.Options{Encrypt: true, KEK: was, NextKEK: next, StateDir: filepath.Join(dir, "state")})
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	ctx := context.Background()
	if err := trail.RotateKEK(ctx); err != nil {
		log.Fatal(err)
	}
	if err := trail.RotateDEK(ctx); err != nil {
		log.Fatal(err)
	}
	list, err := trail.Keys(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, k := range list {
		fmt.Println(k.Kind, k.State, k.Kind == "kek" && k.ID == next.ID())
	}
	b, err := trail.BackupKeys(ctx, filepath.Join(dir, "keys.tar"), 7*24*time.Hour)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(b.DeleteAfter.Sub(b.Created))
	// Output:
	// signing current false
	// lifecycle current false
	// kek current true
	// dek former false
	// dek current false
	// epoch current false
	// mac current false
	// 168h0m0s
}

// Keys that were lost are put back from their backup.
func ExampleRestoreKeys() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path, backup := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "keys.tar")
	opts := &audit.Options{StateDir: filepath.Join(dir, "state")}
	trail, err := audit.Open(path, opts)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := trail.BackupKeys(context.Background(), backup, 0); err != nil {
		log.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		log.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(trail.Dir(), "keys")); err != nil {
		log.Fatal(err)
	}
	if _, err := audit.RestoreKeys(path, backup); err != nil {
		log.Fatal(err)
	}
	trail, err = audit.Open(path, opts)
	fmt.Println(err)
	fmt.Println(trail.Close())
	// Output:
	// <nil>
	// <nil>
}

// The signing key is rotated. Whoever knows the former one verifies on.
func ExampleTrail_RotateSigningKey() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path, state := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "state")
	trail, err := audit.Open(path, &audit.Options{StateDir: state})
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	ctx := context.Background()
	was := trail.VKey()
	if err := trail.RotateSigningKey(ctx, false); err != nil {
		log.Fatal(err)
	}
	fmt.Println(trail.VKey() != was)
	if err := trail.RetireSigningKey(ctx); err != nil {
		log.Fatal(err)
	}
	report, err := trail.Verify(ctx, &audit.VerifyOptions{Key: was})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Status)
	// Output:
	// true
	// intact
}

package slogaudit_test

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/slogaudit"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

func ExampleNewHandler() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")})
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	recorder, err := hook.NewAuditTrailHook(trail, nil)
	if err != nil {
		log.Fatal(err)
	}
	hooks := &hook.Manager{AgentID: "qa-agent-001"}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		log.Fatal(err)
	}

	// Records go where they went before, and into the trail.
	logger := slog.New(slog.NewMultiHandler(
		slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError + 1}),
		slogaudit.NewHandler(hooks, nil),
	))
	ctx := hook.WithMetadata(context.Background(), map[string]any{"user_id": "user123"})
	logger.InfoContext(ctx, "looked up", slog.Group("order", "id", 17, "paid", true))
	logger.ErrorContext(ctx, "can't be saved", "err", fs.ErrPermission)

	if err := recorder.Close(); err != nil {
		log.Fatal(err)
	}
	for e, err := range trail.Query(ctx, audit.Query{User: "user123"}) {
		if err != nil {
			log.Fatal(err)
		}
		attributes, _ := e.Inputs.Get("attributes")
		fmt.Println(e.EventType, e.Metadata.Text("severity"), e.Inputs.Text("body"), string(attributes.JSON()), e.Success)
	}
	// Output:
	// LOG INFO looked up {"order":{"id":17,"paid":true}} true
	// LOG ERROR can't be saved {"err":"permission denied"} false
}

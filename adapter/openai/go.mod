module github.com/kaizen-audit/kaizen-audit/adapter/openai

go 1.26.0

require (
	github.com/kaizen-audit/kaizen-audit v0.0.0
	github.com/openai/openai-go/v3 v3.96.0
)

require (
	github.com/SaveTheRbtz/zstd-seekable-format-go/pkg v0.10.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/coder/websocket v1.8.15 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/tidwall/gjson v1.20.0 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.1 // indirect
	github.com/tidwall/sjson v1.2.5 // indirect
	golang.org/x/mod v0.42.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
)

replace github.com/kaizen-audit/kaizen-audit => ../..

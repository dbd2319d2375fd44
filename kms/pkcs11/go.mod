module github.com/kaizen-audit/kaizen-audit/kms/pkcs11

go 1.26.0

require (
	github.com/kaizen-audit/kaizen-audit v0.0.0
	github.com/miekg/pkcs11 v1.1.2
)

require (
	github.com/SaveTheRbtz/zstd-seekable-format-go/pkg v0.10.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	golang.org/x/mod v0.42.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
)

replace github.com/kaizen-audit/kaizen-audit => ../..

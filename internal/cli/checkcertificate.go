package cli

import (
	"fmt"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// certificateResult is the JSON of check-proof of an erasure's certificate.
type certificateResult struct {
	Status string `json:"status"` // proved
	Kind   string `json:"kind"`   // erasure
	*audit.ErasureCertificate
}

// checkCertificate checks the certificate of an erasure.
func (a *app) checkCertificate(data []byte, user, key, lifecycleKey, format string) error {
	c, err := audit.CheckCertificate(data, user, key, lifecycleKey)
	if err != nil {
		return failedError{err}
	}
	if format == "json" {
		return printJSON(a.stdout, certificateResult{"proved", "erasure", c})
	}
	complete := "at once: there were no backups of the keys"
	if c.CompleteAfter != nil {
		complete = c.CompleteAfter.UTC().Format(time.RFC3339) + ", when the last backup of the keys is gone"
	}
	kept := plural(c.Kept.Entries, "entry", "entries")
	if c.Kept.Entries > 0 {
		kept += ": " + rangesText(c.Kept.Ranges)
	}
	return facts(a.stdout, [2]string{"Proved", "the data of this user was erased"}, [2]string{"Origin", c.Origin},
		[2]string{"Erased", c.Erased.UTC().Format(time.RFC3339)}, [2]string{"Fields", fmt.Sprintf("%d in %s", c.Fields, plural(c.Entries, "entry", "entries"))},
		[2]string{"Entries", rangesText(c.Ranges)}, [2]string{"Kept in clear", kept}, [2]string{"Complete", complete},
		[2]string{"Entry", fmt.Sprint(c.Index)}, [2]string{"Size before", fmt.Sprint(c.SizeBefore)}, [2]string{"Root before", c.RootBefore},
		[2]string{"Size", fmt.Sprint(c.Size)}, [2]string{"Root", c.Root})
}

package receiver

import (
	"testing"
	"time"
)

// SetPatience changes, for one test, what targets wait for a journal before that cannot be read.
func SetPatience(t *testing.T, d time.Duration) {
	t.Helper()
	before := patienceTime
	patienceTime = d
	t.Cleanup(func() { patienceTime = before })
}

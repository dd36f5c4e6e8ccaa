package render

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"strings"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// W3C Trace Context: a request to a target carries the trace of the PBX's request, or one of its own
// that is the same at every attempt, and a parent that is this attempt.

// validTrace is whether the PBX's request was part of a trace (W3C Trace Context, version 00).
func validTrace(r *journal.Record) bool {
	parts := strings.Split(r.Request.Header.Get("Traceparent"), "-")
	return len(parts) == 4 && parts[0] == "00" && isID(parts[1], 32) && isID(parts[2], 16) && len(parts[3]) == 2 && strings.Trim(parts[3], hexDigits) == ""
}

const hexDigits = "0123456789abcdef"

func isID(text string, length int) bool {
	return len(text) == length && strings.Trim(text, hexDigits) == "" && strings.Trim(text, "0") != ""
}

// childOf is the traceparent of one attempt.
func childOf(r *journal.Record) string {
	trace, flags := sha256.Sum256([]byte(r.ID)), "00"
	id := hex.EncodeToString(trace[:16])
	if validTrace(r) {
		parent := r.Request.Header.Get("Traceparent")
		id, flags = parent[3:35], parent[53:55]
	}
	span := make([]byte, 8)
	for i := range span {
		span[i] = byte(rand.IntN(255) + 1)
	}
	return "00-" + id + "-" + hex.EncodeToString(span) + "-" + flags
}

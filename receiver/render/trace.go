package render

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// W3C Trace Context: a request to a target carries the trace of the PBX's request, or one of its own
// that is the same at every attempt, and a parent that is this attempt.

// validTrace is whether the PBX's request was part of a trace (W3C Trace Context, version 00).
func validTrace(r *journal.Record) bool {
	parent := r.Request.Header.Get("Traceparent")
	if parent == "" {
		return false
	}
	parts := strings.Split(parent, "-")
	return len(parts) == 4 && parts[0] == "00" && isID(parts[1], 32) && isID(parts[2], 16) && len(parts[3]) == 2 && strings.Trim(parts[3], hexDigits) == ""
}

const hexDigits = "0123456789abcdef"

func isID(text string, length int) bool {
	return len(text) == length && strings.Trim(text, hexDigits) == "" && strings.Trim(text, "0") != ""
}

// Parent is the traceparent that an attempt belongs under: that of the span that took the request, else the PBX's
// own, else none.
func Parent(r *journal.Record) string {
	if r.Trace != "" {
		return r.Trace
	}
	if validTrace(r) {
		return r.Request.Header.Get("Traceparent")
	}
	return ""
}

// childOf is the traceparent of one attempt.
func childOf(r *journal.Record) string {
	trace, flags := make([]byte, 0, 55), "00"
	if r.Trace != "" || validTrace(r) {
		parent := Parent(r)
		trace, flags = append(trace, parent[:36]...), parent[53:55]
	} else {
		hash := sha256.Sum256([]byte(r.ID))
		trace = append(hex.AppendEncode(append(trace, "00-"...), hash[:16]), '-')
	}
	span := binary.BigEndian.AppendUint64(nil, rand.Uint64()|1) // never 0
	return string(append(append(hex.AppendEncode(trace, span), '-'), flags...))
}

package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

func TestDispositions(t *testing.T) {
	for want, texts := range map[string][]string{
		wire.Answered: {"answered", "ANSWERED", "Answered", "answer", "Answered by agent", "answered_by_customer", "Answered-By-Extension", "Call answered", "Agent answered", "AnsweredByAgent"},
		wire.NoAnswer: {
			"NO ANSWER", "No Answer", "no_answer", "no-answer", "NoAnswer", "noanswer", "No Answered", "not_answered", "Not Answered", "NOT-ANSWERED", "notanswered", "unanswered", "UNANSWERED", "Un-answered",
			"Not Answered by agent", "Call not answered by agent", "agent_not_answered", "Customer not answered", "unanswered by customer", "missed", "Call missed", "Missed call", "missed by agent",
			"abandoned", "Call Abandoned", "cancel", "cancelled", "Canceled", "cancelled by caller", "ring no answer", "No answer by agent",
		},
		wire.Busy: {"busy", "BUSY", "User busy", "USER_BUSY", "user-busy", "Customer busy", "line busy", "Busy Here", "agent busy"},
	} {
		for _, text := range texts {
			got, known := wire.Disposition(text)
			require.True(t, known, text)
			require.Equal(t, want, got, text)
		}
	}
	for _, text := range []string{"", "completed", "FAILED", "Contacted", "queued", "not busy", "Answered on IVR", "answered elsewhere", "answering machine", "answered?", "no", "rejected", "unanswerable"} {
		got, known := wire.Disposition(text)
		require.False(t, known, text)
		require.Equal(t, map[bool]string{true: "failed", false: got}[text == "FAILED"], got)
	}
}

func TestCauses(t *testing.T) {
	for cause, want := range map[string]string{
		"User busy": wire.Busy, "USER_BUSY": wire.Busy, "17": wire.Busy, "busy": wire.Busy,
		"No Answer": wire.NoAnswer, "NO_ANSWER": wire.NoAnswer, "NO_USER_RESPONSE": wire.NoAnswer, "No user responding": wire.NoAnswer, "18": wire.NoAnswer, "19": wire.NoAnswer,
		"ORIGINATOR_CANCEL": wire.NoAnswer, "cancel": wire.NoAnswer,
		"Normal Clearing": "", "NORMAL_CLEARING": "", "16": "", "Answered": "", "": "", "Call Rejected": "", "CALL_REJECTED": "", "disconnected_by_caller": "",
	} {
		require.Equal(t, want, wire.DispositionOfCause(cause), cause)
	}
}

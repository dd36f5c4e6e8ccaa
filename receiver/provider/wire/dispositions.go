package wire

import "strings"

// The canonical words of a disposition.
const (
	Answered = "answered"
	NoAnswer = "noAnswer"
	Busy     = "busy"
)

// dispositions are what PBXs write, without case, blanks, hyphens and underscores, nor whom it is about.
var dispositions = map[string]string{
	"answered": Answered, "answer": Answered,

	"noanswer": NoAnswer, "noanswered": NoAnswer, "notanswered": NoAnswer, "notanswer": NoAnswer, "unanswered": NoAnswer, "unanswer": NoAnswer,
	"didnotanswer": NoAnswer, "notpickedup": NoAnswer, "notpicked": NoAnswer, "ringnoanswer": NoAnswer, "ringingnoanswer": NoAnswer,
	"missed": NoAnswer, "abandoned": NoAnswer, "abandon": NoAnswer,
	"cancelled": NoAnswer, "canceled": NoAnswer, "cancel": NoAnswer, "originatorcancel": NoAnswer, "originatorcancelled": NoAnswer,

	"busy": Busy, "isbusy": Busy, "wasbusy": Busy, "busyhere": Busy, "busytone": Busy,
}

// causes are causes of the end of a call that tell how it went, with Q.850's numbers; the words of dispositions are
// causes, too.
var causes = map[string]string{
	"17": Busy, "q.850:17": Busy, "busyeverywhere": Busy,
	"18": NoAnswer, "19": NoAnswer, "responding": NoAnswer, "nouserresponse": NoAnswer, "nouserresponding": NoAnswer, "noresponse": NoAnswer,
	"useralertingnoanswer": NoAnswer, "alertingnoanswer": NoAnswer, "noanswerfromuser": NoAnswer, "noanswerfromuser(useralerted)": NoAnswer, "useralerted": NoAnswer,
}

// subjects are whom a word of status is about, which says nothing of how it went.
var (
	subjectsBefore = []string{"caller", "callee", "called", "callwas", "call", "agent", "customer", "extension", "user", "subscriber", "client", "line"}
	subjectsAfter  = []string{"byagent", "bycustomer", "byextension", "byuser", "bysubscriber", "bycallee", "bycaller", "byclient", "byqueue", "call"}
)

// Disposition returns the canonical disposition that a word of status stands for. The word is compared whole, so that a
// negation is no affirmation; known is false for any other word, which is returned in lower case and decides nothing.
func Disposition(text string) (disposition string, known bool) {
	if found := findWord(dispositions, Plain(text)); found != "" {
		return found, true
	}
	return strings.ToLower(text), false
}

// DispositionWord is Disposition as a rule's As.
func DispositionWord(text string) string {
	disposition, _ := Disposition(text)
	return disposition
}

// DispositionOfCause returns the disposition of a call that was not answered and ended with a cause; empty where the cause
// does not tell.
func DispositionOfCause(cause string) string {
	word := Plain(cause)
	if found := causes[word]; found != "" {
		return found
	}
	if found := findWord(dispositions, word); found != Answered {
		return found
	}
	return ""
}

// findWord finds a word with or without whom it is about.
func findWord(words map[string]string, word string) string {
	if found := words[word]; found != "" {
		return found
	}
	for range 3 { // a subject before, one after, and call
		cut := trimSubject(word)
		if cut == word {
			return ""
		}
		if found := words[cut]; found != "" {
			return found
		}
		word = cut
	}
	return ""
}

func trimSubject(word string) string {
	for _, subject := range subjectsAfter {
		if rest, ok := strings.CutSuffix(word, subject); ok {
			return rest
		}
	}
	for _, subject := range subjectsBefore {
		if rest, ok := strings.CutPrefix(word, subject); ok {
			return rest
		}
	}
	return word
}

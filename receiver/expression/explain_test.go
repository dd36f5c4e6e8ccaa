package expression_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/expression"
)

// TestWhatIsWrongIsSaidInWords: no token of the parser's, no name of CEL's operators, and a hint where one is known.
func TestWhatIsWrongIsSaidInWords(t *testing.T) {
	for text, want := range map[string]string{
		`event.call.talkSecs > 10`:                      "undefined field 'talkSecs'; did you mean talkSeconds? (line 1, column 11)",
		`evnt.call.id == "x"`:                           "unknown name evnt; did you mean event? (line 1, column 1)",
		`event.call.id = "x"`:                           "unexpected =: equality is == (line 1, column 15)",
		`event.call.id == "x" and true`:                 "unexpected and: and is && (line 1, column 22)",
		`not event.call.final`:                          "unexpected event: not is ! (line 1, column 5)",
		`event.call.id ==`:                              "the expression ends where more is expected: is a value, quote or bracket missing? (line 1, column 17)",
		`event.call.queue in ["a"`:                      "the expression ends where more is expected: is a value, quote or bracket missing? (line 1, column 25)",
		`event.call.id == "x`:                           `unexpected "x: a quote that nothing closes (line 1, column 18)`,
		`event.call.id == 5`:                            "== does not go between a text and a number (line 1, column 15)",
		"true &&\n event.call.talkSeconds > '1'":        "> does not go between a number and a text (line 2, column 25)",
		`queue == "902"`:                                "unknown name queue: members are reached through event, such as event.call.queue (line 1, column 1)",
		`$event.call.id == ""`:                          "unexpected $: fields begin with event, such as event.call.queue (line 1, column 1)",
		`event.call.queue == 'a')`:                      "unexpected ) (line 1, column 24)",
		`event.call.id.startWith("x")`:                  "unknown name startWith(); did you mean startsWith? (line 1, column 24)",
		`event.call`:                                    "expected an expression that is true or false, got an object (Call)",
		`event.call.queue`:                              "expected an expression that is true or false, got a text",
		`{{ .call.from }}`:                              `expected a CEL expression such as {"phone": event.call.from.number}, got a template with {{ }}`,
		`event.call.agents.name == "x"`:                 "a list has no members: take one by its index, such as [0], or ask with exists(x, …) (line 1, column 18)",
		`event.call.nme == "" || event.call.quue == ""`: "undefined field 'nme'; did you mean name? (line 1, column 11); undefined field 'quue'; did you mean queue? (line 1, column 35)",
	} {
		_, err := expression.Compile(text)
		require.EqualError(t, err, want, text)
	}
	_, err := expression.Compile(`event.call.id == "{{"`)
	require.NoError(t, err, "braces in a text are a text")
}

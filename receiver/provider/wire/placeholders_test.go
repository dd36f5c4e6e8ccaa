package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

func TestPlaceholders(t *testing.T) {
	for _, text := range []string{
		"None", "none", "NONE", "null", "NULL", "undefined", "N/A", "n/a", "#N/A", "(null)", "<null>", "<nil>", "nil", "NaN", " None ", "null\n",
		"$call_id", "$campaign_name", "${call_id}", "+$caller_id_number", "$first $last", "{queue_name}", "{{queue_name}}", "{{ event.name }}",
		`{{$json["body"]["call_id"]}}`, "{{1.callId}}", "%call_id%",
		"_number", "_name", "_key", "_cause", "_id_number", "_cause_description", "_no_with_prefix", "_ring_time",
	} {
		require.True(t, wire.IsPlaceholder(text), "%q", text)
	}
	for _, text := range []string{
		"", " ", "0", "false", "Nil", "Nan", "Nonette", "Nullarbor", "Unavailable", "unknown", "$", "$5", "US$ 5", "$call_id is it", "{}", `{"id":1}`, "{'a': None}", "{a: b}",
		"_", "__", "_x", "_Asha", "_number_of_calls", "name_number", "100%", "%", "%%", "50% off %", "+919876500042", "+", "[null]", "<2001>", "(none of it)",
	} {
		require.False(t, wire.IsPlaceholder(text), "%q", text)
	}
}

// TestPlaceholdersAreAbsent, in whatever way they are asked for.
func TestPlaceholdersAreAbsent(t *testing.T) {
	f, err := wire.Read(request("application/json", "", []byte(`{"a":"None","b":"$b","c":{"d":"null","e":"x"},"f":["_number"],"call_id":"{call_id}","callId":"7","text":"None"}`)), wire.Settings{})
	require.NoError(t, err)
	require.Empty(t, f.Text("a", "b"))
	require.Nil(t, f.Value("a", "b", "c.d"))
	require.Equal(t, "x", f.Text("c.d", "c.e"))
	require.Equal(t, "7", f.Text("call_id"), "another spelling of the key has a value")
	require.True(t, f.Has("a"), "it came all the same")
	require.Contains(t, string(f.Payload()), `"a":"None"`, "and stays in the payload")
}

package wire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

func TestParseJSON(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"JSON as it is":       {`{"a":[1,2.50,"x",null,true]}`, `{"a":[1,2.50,"x",null,true]}`},
		"numbers keep digits": {`{"a":12345678901234567890.10}`, `{"a":12345678901234567890.10}`},
		"leading zero":        {`{"number": 09331112233}`, `{"number":"09331112233"}`},
		"Python":              {`{'a': None, 'b': True, 'c': 'it''s'}`, ""},
		"single quotes":       {`{'a': 'say "hi"', 'b': None, 'c': False}`, `{"a":"say \"hi\"","b":null,"c":false}`},
		"trailing commas":     {`{"a":[1,2,],}`, `{"a":[1,2]}`},
		"a raw new line":      {"{\"a\":\"x\ny\"}", `{"a":"x\ny"}`},
		"escapes":             {`{'a':'\u0633\ud83d\ude00\q'}`, `{"a":"س😀q"}`},
		"no quotes at all":    {`{a: b c, d: e}`, `{"a":"b c","d":"e"}`},
		"Python 2":            {`{u'a': u'b', 'c': b'd', u: 'e'}`, `{"a":"b","c":"d","u":"e"}`},
		"a time, no quotes":   {`{"starttime": 2021-01-16 06:30:37.471398, "n": 1}`, `{"starttime":"2021-01-16 06:30:37.471398","n":1}`},
		"not closed":          {`{"a":`, ""},
		"nothing":             {``, ""},
		"more than one":       {`{"a":1} {"b":2}`, ""},
		"too deep":            {strings.Repeat("[", 100_000), ""},
		"keys too deep":       {strings.Repeat("{", 100_000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			value, err := wire.ParseJSON([]byte(tc.text))
			if tc.want == "" {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.JSONEq(t, tc.want, string(wire.Marshal(value)))
		})
	}
}

func TestParseTime(t *testing.T) {
	kolkata, err := time.LoadLocation("Asia/Kolkata")
	require.NoError(t, err)
	for text, want := range map[string]string{
		"2021-01-16 06:30:37.471398": "2021-01-16T01:00:37.471398Z",
		"2026-07-11 21:13:52":        "2026-07-11T15:43:52Z",
		"7/11/2026, 9:12:56 PM":      "2026-07-11T15:42:56Z",
		"2026-07-11T21:13:52":        "2026-07-11T15:43:52Z",
		"2026-07-11T21:13:52+01:00":  "2026-07-11T20:13:52Z",
		"2026-07-11T21:13:52.5Z":     "2026-07-11T21:13:52.5Z",
		"1675683148.9228208":         "2023-02-06T11:32:28.9228208Z",
		"1675683148":                 "2023-02-06T11:32:28Z",
		"1675683148922":              "2023-02-06T11:32:28.922Z",
		"06:30:37.5 2021-01-16":      "2021-01-16T01:00:37.5Z",
		"7/11/2026, 9:12:56\u202fPM": "2026-07-11T15:42:56Z",
		"2026-07-11 21:13:52 +0530":  "2026-07-11T15:43:52Z",
		"2026-07-11T21:13:52+0530":   "2026-07-11T15:43:52Z",
		"2026-07-11 9:13:52 PM":      "2026-07-11T15:43:52Z",
		"1675683148.x":               "",
		"-1675683148":                "",
		"31/12/2026 10:00:00":        "2026-12-31T04:30:00Z",
		"":                           "",
		"0000-00-00 00:00:00":        "",
		"soon":                       "",
		"5":                          "",
		strings.Repeat("9", 100):     "",
	} {
		got := wire.ParseTime(text, kolkata)
		if want == "" {
			require.Nil(t, got, text)
			continue
		}
		require.NotNil(t, got, text)
		require.Equal(t, want, got.Format(time.RFC3339Nano), text)
	}
}

// TestClocksThatChange: a time that does not exist, or exists twice, has the offset from before the
// change.
func TestClocksThatChange(t *testing.T) {
	for _, tc := range []struct{ zone, text, want, why string }{
		{"Europe/London", "2026-03-29 00:59:59", "2026-03-29T00:59:59Z", "the last second of winter time"},
		{"Europe/London", "2026-03-29 01:30:00", "2026-03-29T01:30:00Z", "skipped: 02:30 summer time"},
		{"Europe/London", "2026-03-29 02:30:00", "2026-03-29T01:30:00Z", "summer time"},
		{"Europe/London", "2026-10-25 00:30:00", "2026-10-24T23:30:00Z", "summer time"},
		{"Europe/London", "2026-10-25 01:30:00", "2026-10-25T00:30:00Z", "repeated: the first one"},
		{"Europe/London", "2026-10-25 02:00:00", "2026-10-25T02:00:00Z", "winter time"},
		{"America/New_York", "2026-11-01 01:30:00", "2026-11-01T05:30:00Z", "repeated: the first one, west of Greenwich"},
		{"America/New_York", "2026-03-08 02:30:00", "2026-03-08T07:30:00Z", "skipped: 03:30 summer time"},
		{"Asia/Tehran", "2021-03-22 00:30:00", "2021-03-21T21:00:00Z", "skipped at midnight"},
		{"Asia/Tehran", "2026-03-22 00:30:00", "2026-03-21T21:00:00Z", "clocks do not change any more"},
		{"Australia/Lord_Howe", "2026-04-05 01:45:00", "2026-04-04T14:45:00Z", "half an hour repeated"},
	} {
		zone, err := time.LoadLocation(tc.zone)
		require.NoError(t, err)
		got := wire.ParseTime(tc.text, zone)
		require.NotNil(t, got, tc.text)
		require.Equal(t, tc.want, got.Format(time.RFC3339), "%s %s: %s", tc.zone, tc.text, tc.why)
	}
}

// TestShapes: fields are found in whatever shape a request has them.
func TestShapes(t *testing.T) {
	part := "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name=\"o\"\r\n\r\n{\"x\":\"y\"}\r\n--b--\r\n"
	for name, tc := range map[string]struct{ query, contentType, body string }{
		"JSON":                  {"", "application/json", `{"a":1,"o":{"x":"y"}}`},
		"JSON in a JSON text":   {"", "", `"{\"a\":1,\"o\":{\"x\":\"y\"}}"`},
		"parameters":            {`a=1&o={"x":"y"}`, "", ""},
		"a form":                {"", "application/x-www-form-urlencoded", `a=1&o=%7B%22x%22%3A%22y%22%7D`},
		"both":                  {"a=1", "text/plain", `o={'x': 'y'}`},
		"brackets":              {"a=1&o[x]=y", "", ""},
		"brackets, encoded":     {"a=1&o%5Bx%5D=y", "", ""},
		"multipart":             {"", "multipart/form-data; boundary=b", part},
		"keys with white space": {"", "", `{"a ":1," o":{"x ":"y"}}`},
		"an object as text":     {"", "", `{"a":"1","o":"{\"x\":\"y\"}"}`},
		"a byte order mark":     {"", "", "\ufeff{\"a\":1,\"o\":{\"x\":\"y\"}}"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := wire.Read(&event.Request{Query: tc.query, Body: []byte(tc.body), Header: http.Header{"Content-Type": {tc.contentType}}}, wire.Settings{})
			require.NoError(t, err)
			require.Equal(t, "1", f.Text("a"))
			require.Equal(t, "y", f.Object("o").Text("x"))
			require.Equal(t, "y", f.Text("nothing", "o.x"))
		})
	}
	nested, err := wire.Read(&event.Request{Body: []byte(`{"a":[],"b":{"c":1},"d":"[1,2]","e":false,"f":1.50}`)}, wire.Settings{})
	require.NoError(t, err)
	require.Equal(t, "[1,2]", nested.Text("a", "b", "d"), "objects and lists are no text")
	require.Equal(t, "false", nested.Text("e"))
	require.Equal(t, "1.50", nested.Text("f"))
	f, err := wire.Read(&event.Request{Query: "l[1][x]=b&l[0][x]=a&l[0][y]=c&l[10=z&[=1&]=2&m[]=3"}, wire.Settings{})
	require.NoError(t, err)
	require.Equal(t, `[{"x":"a","y":"c"},{"x":"b"}]`, string(wire.Marshal(f.List("l"))))
	_, err = wire.Read(&event.Request{Body: []byte("--b\r\nbroken"), Header: http.Header{"Content-Type": {"multipart/form-data; boundary=b"}}}, wire.Settings{})
	require.ErrorContains(t, err, "part 1 of the form")
}

func TestNumbers(t *testing.T) {
	for _, tc := range []struct {
		raw, region   string
		international bool
		want, exten   string
	}{
		{"+442035141598", "", false, "+442035141598", ""},
		{"447854740947", "", true, "+447854740947", ""},
		{"447854740947", "", false, "", ""},
		{"09331112233", "IR", false, "+989331112233", ""},
		{"09331112233", "", false, "", ""},
		{"9876500014", "IN", false, "+919876500014", ""},
		{"919876500014", "IN", false, "+919876500014", ""},
		{"020 3514 1598", "GB", false, "+442035141598", ""},
		{"991", "IR", false, "", "991"},
		{"1", "IR", false, "", ""},
		{"failed", "IR", false, "", ""},
		{"Extension-0602141810347", "IN", false, "", ""},
		{"", "IR", true, "", ""},
	} {
		party := wire.Settings{Region: tc.region, International: tc.international}.Party(tc.raw)
		require.Equal(t, event.Party{Raw: tc.raw, Number: tc.want, Extension: tc.exten}, party)
	}
}

func TestBoundedParameters(t *testing.T) {
	_, err := wire.Read(&event.Request{Query: strings.Repeat("a=b&", 1_000_000)}, wire.Settings{})
	require.ErrorContains(t, err, "at most")
}

func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,{}]}`, `{'a': None}`, `{a:09}`, `{"a":"\u00`, `{" a":"\ud800\udc00\ud800\u0041\/", "b" : [-0.5e+3 , 10, {}]} `, strings.Repeat("{'a':", 300), `[,]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		value, err := wire.ParseJSON(text)
		if json.Valid(text) && utf8.Valid(text) {
			decoder := json.NewDecoder(bytes.NewReader(text))
			decoder.UseNumber()
			var want any
			require.NoError(t, decoder.Decode(&want))
			require.Equal(t, want, value, "%q", text)
		}
		if err != nil {
			return
		}
		if !json.Valid(wire.Marshal(value)) {
			t.Fatalf("%q became what is no JSON", text)
		}
		if fields, err := wire.Read(&event.Request{Body: text}, wire.Settings{}); err == nil {
			payload := fields.Payload() // which may be the text itself
			again, err := wire.ParseJSON(payload)
			require.NoError(t, err)
			require.True(t, json.Valid(payload), "%q has the payload %q", text, payload)
			sent, err := wire.ParseJSON(wire.Marshal(fields.Sent()))
			require.NoError(t, err)
			require.Equal(t, sent, again, "%q", text)
		}
	})
}

// TestNumbersAreForgotten: what is remembered of numbers is bounded, and the same as when it is not.
func TestNumbersAreForgotten(t *testing.T) {
	for n := range 10_000 {
		raw := fmt.Sprintf("+4420351%05d", n)
		require.Equal(t, raw, wire.E164(raw, "", false))
		require.Equal(t, raw, wire.E164(raw, "", false))
	}
	require.Equal(t, "+989123456789", wire.E164("09123456789", "IR", false))
	require.Empty(t, wire.E164("09123456789", "", false), "the region is part of what is remembered")
}

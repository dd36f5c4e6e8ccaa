package wire_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

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
	for _, seed := range []string{`{"a":[1,{}]}`, `{'a': None}`, `{a:09}`, `{"a":"\u00`, strings.Repeat("{'a':", 300), `[,]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		value, err := wire.ParseJSON(text)
		if err != nil {
			return
		}
		if !json.Valid(wire.Marshal(value)) {
			t.Fatalf("%q became what is no JSON", text)
		}
	})
}

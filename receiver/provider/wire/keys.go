package wire

import (
	"maps"
	"slices"
	"strings"
)

// maxNamedKeys is how many keys a reason names.
const maxNamedKeys = 20

// askedKeys are all keys that rules ask for, with their plain keys; plainKeys are those that differ from their keys.
var (
	askedKeys = map[string]string{}
	plainKeys = map[string]bool{}
)

// Keys notes keys that a decoder asks for beside its rules, so that they are found in other spellings, too.
func Keys(keys ...string) []string {
	register(keys)
	return keys
}

// register notes keys that rules ask for; tables of rules are made when the program starts.
func register(keys []string) {
	for _, key := range keys {
		for step := range strings.SplitSeq(key, ".") {
			plain := makePlainKey(step)
			askedKeys[step] = plain
			if plain != step && plain != "" && plain[0] >= 'a' && plain[0] <= 'z' {
				plainKeys[plain] = true
				joinedKeys[plain[0]-'a'] |= 1 << min(len(plain), 63)
			}
		}
	}
}

// joinedKeys are the lengths of those plain keys that may be sent in place of keys with underscores, by their first letter:
// what tells at once that most keys are none.
var joinedKeys ['z' - 'a' + 1]uint64

// isJoined reports whether a key of letters and digits is one that rules ask for with underscores or in upper case.
func isJoined(key string) bool {
	if key == "" || isDigit(key[0]) || joinedKeys[key[0]-'a']&(1<<min(len(key), 63)) == 0 {
		return false
	}
	_, asked := askedKeys[key]
	return !asked && plainKeys[key]
}

// plainKey is a key without what templates write differently: case, white space, hyphens, underscores, and the signs of a
// variable ($call_id, {call_id}).
func plainKey(key string) string {
	if plain, known := askedKeys[key]; known {
		return plain
	}
	return makePlainKey(key)
}

func makePlainKey(key string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case ' ', '_', '-', '$', '{', '}', '\t', '\n', '\r', '\u00a0', '\ufeff':
			return -1
		}
		return r
	}, strings.ToLower(key))
}

// isOdd reports whether a key may be another spelling of one that rules ask for: it is not in lower case with underscores,
// or a word that they spell with underscores or in upper case.
func isOdd(key string) bool {
	joined := true // by no underscore
	for i := range len(key) {
		switch c := key[i]; {
		case c >= 'a' && c <= 'z', isDigit(c):
		case c == '_':
			joined = false
		default:
			return true
		}
	}
	return joined && isJoined(key)
}

// addOdd finds the fields whose keys are written in another way than usual. Of several for one key the first that says
// something counts, in the order of their keys.
func (f *Fields) addOdd(keys []string) {
	f.odd = nil
	if len(keys) == 0 {
		return
	}
	slices.Sort(keys)
	f.odd = make(map[string]any, len(keys))
	for _, key := range keys {
		plain := makePlainKey(key)
		if known, seen := f.odd[plain]; !seen || present(known) == nil {
			f.odd[plain] = f.named[key]
		}
	}
}

// Present is how many fields came with a value that says something.
func (f Fields) Present() int {
	n := 0
	for _, value := range f.sent {
		if present(value) != nil {
			n++
		}
	}
	return n
}

// Keys are the names of the fields that came, for a reason: sorted, a bounded number of them, and without what may be
// more than a name.
func (f Fields) Keys() []string {
	const longest = 40
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(f.sent)) {
		key = strings.TrimSpace(key)
		if len(key) > longest || !isIdentifier(key) || isDigit(key[0]) {
			continue
		}
		if len(keys) == maxNamedKeys {
			return append(keys, "…")
		}
		keys = append(keys, key)
	}
	return keys
}

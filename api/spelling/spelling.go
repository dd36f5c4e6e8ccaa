// Package spelling finds the name that somebody probably meant. It must not know what the names are for.
package spelling

import "strings"

// Closest returns the known name that is nearest to name, or "" where none is near: one that differs in case,
// blanks, hyphens or underscores alone, else one that is at most two fifths of its length away (insertions, deletions,
// replacements and swaps of neighbours, counted in bytes).
func Closest(name string, known []string) string {
	plain := fold(name)
	best, least := "", len(plain)*2/5+1
	for _, candidate := range known {
		if d := distance(plain, fold(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// DidYouMean returns "; did you mean X?" where a known name is near, else "".
func DidYouMean(name string, known []string) string {
	if closest := Closest(name, known); closest != "" {
		return "; did you mean " + closest + "?"
	}
	return ""
}

func fold(name string) string {
	return strings.NewReplacer(" ", "", "-", "", "_", "").Replace(strings.ToLower(name))
}

// maxLength bounds what is compared, in bytes: the time of a comparison grows with the square of it.
const maxLength = 64

// distance is the optimal string alignment distance of two names; of long ones it is their longer length.
func distance(a, b string) int {
	if len(a) > maxLength || len(b) > maxLength {
		if a == b {
			return 0
		}
		return max(len(a), len(b))
	}
	var beforeLast []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], beforeLast[j-1]+1)
			}
		}
		beforeLast, last = last, row
	}
	return last[len(b)]
}

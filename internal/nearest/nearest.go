// Package nearest guesses what a mistyped word was meant to be, of the words that are known. It is the one guess behind every "did you mean".
package nearest

import (
	"fmt"
	"strings"
)

// Hint is `; did you mean "get"?`, to be put behind a sentence that says what is wrong, or "" when no candidate is near, as [To] has it.
func Hint(word string, candidates []string) string {
	if near := To(word, candidates); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// To gives the candidate that the word was most likely meant to be, or "" when none is near: at most one edit for each three characters,
// where a swap of neighbours is one edit. Case, `-` and `_` do not count. A word that is near to none may be a
// part of one. The first of equally near candidates wins.
func To(word string, candidates []string) string {
	best, bestDistance := "", 1+max(1, len(word)/3)
	folded := fold(word)
	for _, c := range candidates {
		if d := distance(folded, fold(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	if best == "" && len(folded) > 1 {
		for _, c := range candidates {
			if strings.Contains(fold(c), folded) {
				return c
			}
		}
	}
	return best
}

// fold takes away what people most often get wrong.
func fold(s string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
}

// distance is the Damerau-Levenshtein distance (optimal string alignment) between two texts, by bytes. Texts beyond 64 bytes are infinitely far.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 1 << 20
	}
	before, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return previous[len(b)]
}

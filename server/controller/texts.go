package controller

import (
	"unique"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// shareTexts makes results share the texts that most of them have in common, and that the mind keeps for as long as a result is the newest: of 100,000 checks, many are aliases of the same names and have
// certificates of the same issuers. Nobody else may have the results yet.
func shareTexts(results []*meshv1.Result) {
	for _, r := range results {
		share(r.GetCanonicalNames())
		share(r.GetTls().GetIssuers())
	}
}

func share(list []string) {
	for i, text := range list {
		list[i] = unique.Make(text).Value()
	}
}

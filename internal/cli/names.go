package cli

import (
	"cmp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/nearest"
	"github.com/probemesh/probemesh/internal/spec"
)

// kindOf finds a kind of resource by what a person calls it: plural, singular or short.
func kindOf(word string, of []*resource) (*resource, error) {
	var words, plurals []string
	for _, r := range of {
		plurals = append(plurals, r.plural)
		for _, w := range append([]string{r.plural, r.singular}, r.short...) {
			if strings.EqualFold(w, word) {
				return r, nil
			}
		}
		words = append(words, r.plural, r.singular)
	}
	if word == "events" || word == "event" {
		return nil, usagef("there is no kind %q; what happened is in the timeline of an incident: `probemesh get incidents`, then `probemesh explain incident NAME`", word)
	}
	if near := nearest.To(word, words); near != "" {
		return nil, usagef("there is no kind %q; did you mean %q?", word, near)
	}
	return nil, usagef("there is no kind %q; kinds are %s. Write the kind first, for example: %s %s", word, strings.Join(plurals, ", "), of[0].singular, word)
}

// nameOf is the resource name of what a person writes: `shop`, `checks/shop` or `check/shop`.
func nameOf(collection, word string) (string, error) {
	trimmed := word
	if rest, ok := strings.CutPrefix(word, strings.TrimSuffix(collection, "s")+"/"); ok {
		trimmed = rest
	}
	name, err := spec.ParseName(collection, trimmed)
	if err != nil {
		return "", usagef("%s", err)
	}
	return name, nil
}

// oneName reads the arguments of a command on one resource: `NAME`, or `KIND NAME` where the kind is already clear.
func oneName(cmd *cobra.Command, collection string, args []string) (string, error) {
	singular := strings.TrimSuffix(collection, "s")
	if len(args) >= 2 && (args[0] == singular || args[0] == collection) {
		args = args[1:]
	}
	if len(args) == 2 {
		kinds := []string{singular}
		if strings.HasPrefix(cmd.Use, "explain ") {
			kinds = []string{"check", "incident"}
		}
		return "", usagef("there is no kind %q here%s Write: %s", args[0], cmp.Or(nearest.Hint(args[0], kinds), "."), cmd.UseLine())
	}
	if len(args) > 1 {
		return "", usagef("one %s at a time, and %d are named. Write: %s", singular, len(args), cmd.UseLine())
	}
	if len(args) != 1 || args[0] == singular || args[0] == collection {
		return "", usagef("which %s? Write: %s", singular, cmd.UseLine())
	}
	return nameOf(collection, args[0])
}

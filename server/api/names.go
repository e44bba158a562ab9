package api

import (
	"fmt"
	"unicode/utf8"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
)

// requestIDMax is how many characters a request_id may have.
const requestIDMax = 64

// named gives the full resource name that a request has in a field, or an INVALID_FIELD error.
func named(collection, field, name string) (string, error) {
	if name == "" {
		return "", fault.Invalid(fault.Violation{Field: field, Problem: fmt.Sprintf("is missing; give %s/<id>", collection)})
	}
	full, err := spec.ParseName(collection, name)
	if err != nil {
		return "", fault.Invalid(fault.Violation{Field: field, Problem: err.Error()})
	}
	return full, nil
}

// chosenName gives the name for a new resource from its id and the name in it, either of which may be empty, with the faults of the choice.
func chosenName(collection, noun, id, name string) (string, []fault.Violation) {
	if id == "" {
		return name, nil
	}
	full, err := spec.ParseName(collection, id)
	if err != nil {
		return id, []fault.Violation{{Field: noun + "_id", Problem: err.Error()}}
	}
	if name == "" {
		return full, nil
	}
	if other, err := spec.ParseName(collection, name); err == nil && other != full {
		return full, []fault.Violation{{Field: noun + "_id", Problem: fmt.Sprintf("says %s, but %s.name says %s; leave one out", full, noun, other)}}
	}
	return full, nil
}

func requestIDFaults(id string) []fault.Violation {
	if n := utf8.RuneCountInString(id); n > requestIDMax {
		return []fault.Violation{{Field: "request_id", Problem: fmt.Sprintf("has %d characters; at most %d are allowed", n, requestIDMax)}}
	}
	return nil
}

// invalidIfAny is the INVALID_FIELD error of the faults, or nil without any.
func invalidIfAny(faults []fault.Violation) error {
	if len(faults) == 0 {
		return nil
	}
	return fault.Invalid(faults...)
}

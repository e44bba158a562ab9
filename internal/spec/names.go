// Package spec says what a valid check and receiver are, what their defaults resolve to, and how resources are named. It is shared by the API
// (which refuses what is not valid), the command line (which says so before anything is sent) and the prober. It does no I/O.
package spec

import (
	"fmt"
	"regexp"
	"strings"
)

// Collections of resource names.
const (
	Checks    = "checks"
	Probers   = "probers"
	Servers   = "servers"
	Receivers = "receivers"
	Incidents = "incidents"
	Members   = "members"
	Builds    = "builds"
)

var idPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// buildPattern is wider: a build is named by its version, percent-encoded where need be.
var buildPattern = regexp.MustCompile(`^[A-Za-z0-9._~+%@:-]{1,200}$`)

// Name is the resource name of an id in a collection: Name(Checks, "shop") is "checks/shop".
func Name(collection, id string) string { return collection + "/" + id }

// ID is the last part of a resource name: ID("checks/shop") is "shop".
func ID(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// CheckID checks a name that stands by itself, as in a flag: a bare id. Kind says of what, "prober". The error says what would be right.
func CheckID(kind, id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("%q cannot be the name of a %s; write 1 to 63 characters of a-z, 0-9 and -, not starting or ending with -", id, kind)
	}
	return nil
}

// ParseName checks that name is a resource name of the collection, or a bare id, and returns the full name. The error says what would be right.
func ParseName(collection, name string) (string, error) {
	id, ok := strings.CutPrefix(name, collection+"/")
	if !ok {
		id = name
	}
	if collection == Builds && buildPattern.MatchString(id) {
		return collection + "/" + id, nil
	}
	if !idPattern.MatchString(id) {
		return "", fmt.Errorf("%q is not a name of %s; write %s/<id>, where <id> is 1 to 63 characters of a-z, 0-9 and -, not starting or ending with -",
			name, collection, collection)
	}
	return collection + "/" + id, nil
}

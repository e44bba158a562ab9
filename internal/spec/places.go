package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/nearest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// placesNamed is how many datacenters a warning names when none is near.
const placesNamed = 8

// EmptyDatacenters warns of each datacenter that a check asks for and in which no prober is enrolled: it may be new, and it may be mistyped. enrolled are the datacenters with probers,
// also with some that are drained or silent, sorted. path is put before each field's path; it may be empty. A check with such datacenters is valid.
func EmptyDatacenters(c *meshv1.Check, path string, enrolled []string) []fault.Violation {
	f := &faults{path: path}
	for i, dc := range c.GetDatacenters() {
		if slices.Contains(enrolled, dc) || !idPattern.MatchString(dc) {
			continue
		}
		right := "; no prober is enrolled anywhere yet"
		if len(enrolled) > 0 {
			right = nearest.Hint(dc, enrolled)
		}
		if right == "" {
			named := enrolled[:min(len(enrolled), placesNamed)]
			right = "; probers are enrolled in " + strings.Join(named, ", ")
			if more := len(enrolled) - len(named); more > 0 {
				right += fmt.Sprintf(" and %d more", more)
			}
		}
		f.add(fmt.Sprintf("datacenters[%d]", i), "is %q, where no prober is enrolled%s", dc, right)
	}
	return f.list
}

package health_test

import (
	"os"
	"strings"
	"testing"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// The operators' table must have every condition, since get mesh sends people there.
func TestTheManualHasEveryCondition(t *testing.T) {
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range meshv1.Condition_Code_name {
		if n != 0 && !strings.Contains(string(b), "\n| `"+name+"` | ") {
			t.Errorf("docs/operations.md has no row for %s", name)
		}
	}
}

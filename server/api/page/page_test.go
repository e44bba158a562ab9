package page

import (
	"testing"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestATokenGoesOnWhereThePageEnded(t *testing.T) {
	first, err := Read("ListChecks", "f", "", 0)
	if err != nil || first.After != "" || first.Size != SizeDefault {
		t.Fatalf("first page: %+v, %v", first, err)
	}
	second, err := Read("ListChecks", "f", first.Next("checks/shop"), 5000)
	if err != nil || second.After != "checks/shop" || second.Size != SizeMax {
		t.Fatalf("second page: %+v, %v", second, err)
	}
}

func TestAForeignTokenIsRefused(t *testing.T) {
	c, err := Read("ListChecks", "verdict = \"UP\"", "", 1)
	if err != nil {
		t.Fatal(err)
	}
	token := c.Next("checks/shop")
	for name, r := range map[string]struct{ call, filter, token string }{
		"other call":   {"ListStatuses", "verdict = \"UP\"", token},
		"other filter": {"ListChecks", "", token},
		"cut":          {"ListChecks", "verdict = \"UP\"", token[:len(token)-1]},
		"longer":       {"ListChecks", "verdict = \"UP\"", token + "A"},
		"altered":      {"ListChecks", "verdict = \"UP\"", token[:15] + "_" + token[16:]},
		"not base64":   {"ListChecks", "verdict = \"UP\"", "%%%"},
		"other version": {"ListChecks", "verdict = \"UP\"",
			"Ag" + token[2:]},
	} {
		if _, err := Read(r.call, r.filter, r.token, 1); !fault.IsReason(err, meshv1.ErrorReason_PAGE_TOKEN_INVALID) {
			t.Errorf("%s: %v, want PAGE_TOKEN_INVALID", name, err)
		}
	}
}

func TestANegativeSizeIsRefused(t *testing.T) {
	if _, err := Read("ListChecks", "", "", -1); !fault.IsReason(err, meshv1.ErrorReason_INVALID_FIELD) {
		t.Errorf("%v, want INVALID_FIELD", err)
	}
}

// Whatever the token, reading it does not panic; and a token that reads is the one that its cursor makes.
func FuzzRead(f *testing.F) {
	c, err := Read("ListChecks", "", "", 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.Next("checks/shop"))
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, token string) {
		got, err := Read("ListChecks", "", token, 0)
		if err != nil || token == "" {
			return
		}
		if again := got.Next(got.After); again != token {
			t.Fatalf("token %q reads as %q, whose token is %q", token, got.After, again)
		}
	})
}

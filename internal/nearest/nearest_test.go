package nearest

import "testing"

func TestTheWordThatWasMeantIsFound(t *testing.T) {
	candidates := []string{"https", "http", "tcp", "grpc", "grpcs", "grpc_listen", "interval"}
	for word, want := range map[string]string{
		"htps": "https", "tpc": "tcp", "GRPC": "grpc", "gprc": "grpc", "grpc-listn": "grpc_listen", "inter": "interval",
		"ab": "", "gopher": "", "": "", "in": "interval",
	} {
		if got := To(word, candidates); got != want {
			t.Errorf("%q was taken for %q, want %q", word, got, want)
		}
	}
	if h := Hint("htps", candidates); h != `; did you mean "https"?` {
		t.Errorf("hint %q", h)
	}
	if h := Hint("gopher", candidates); h != "" {
		t.Errorf("hint %q", h)
	}
}

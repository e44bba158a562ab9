package link

import (
	"path/filepath"
	"testing"
)

// A server that listens everywhere and was told no name says 0.0.0.0, which on the prober's machine is the prober's machine.
func TestAnAddressThatLeadsNowhereIsNotTried(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers.json")
	b := openBook(Config{Book: path, Servers: []string{"mesh:1"}}, quiet)
	b.remember("servers/b", "mesh:1", []string{"0.0.0.0:7700", "[::]:7700", ":7700", "", "b:1"}, nil)
	b.prefer([]string{"0.0.0.0:7700", "c:1"})
	want := []string{"c:1", "mesh:1", "b:1", "mesh:1"}
	for i, w := range want {
		if got, _ := b.next(); got != w {
			t.Fatalf("attempt %d goes to %s, want %s", i+1, got, w)
		}
	}
}

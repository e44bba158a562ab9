package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/probemesh/probemesh"

type pkg struct {
	ImportPath   string
	Doc          string
	Imports      []string
	Deps         []string
	TestImports  []string
	XTestImports []string
}

// list asks the go command for every package of the module.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Doc,Imports,Deps,TestImports,XTestImports", module+"/...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages only; this test looks at the wrong module", len(all))
	}
	return all
}

// rule forbids packages below From to depend, directly or not, on packages below To.
type rule struct {
	from, to string
	why      string
	// except are packages below from that may.
	except []string
}

func rules() []rule {
	return []rule{
		{from: "prober", to: "server", why: "a prober runs where the servers are not, and links nothing of them"},
		{from: "server", to: "prober", why: "a server learns of probers by the session protocol alone"},
		{from: "prober", to: "scheduler", why: "probers measure, they never decide"},
		{from: "prober", to: "github.com/prometheus/prometheus", why: "the time-series engine would double the prober's size; history is the servers'"},
		{from: "prober", to: "go.etcd.io/etcd", why: "probers hold no etcd connection: a thousand of them would be a thousand watchers"},
		{from: "scheduler", to: "server", why: "the mind does no I/O and knows nobody who does"},
		{from: "scheduler", to: "go.etcd.io/etcd", why: "the mind does no I/O"},
		{from: "scheduler", to: "net/http", why: "the mind does no I/O", except: []string{}},
		{from: "proto", to: module + "/internal", why: "the contract depends on nothing of ours"},
		{from: "proto", to: "server", why: "the contract depends on nothing of ours"},
		{from: "server/api", to: "server/gateway", why: "they meet in store and controller"},
		{from: "server/api", to: "server/notify", why: "they meet in store and controller"},
		{from: "server/api", to: "server/controller", why: "api states what it needs of the controller as an interface of its own"},
		{from: "server/gateway", to: "server/notify", why: "they meet in store and controller"},
		{from: "server/notify", to: "server/gateway", why: "they meet in store and controller"},
		{from: "server/notify", to: "server/api", why: "they meet in store and controller"},
		{from: "server/peer", to: "server/controller", why: "peer states what it needs of the controller as an interface of its own"},
		{from: "server/peer", to: "server/gateway", why: "they meet in store and controller"},
		{from: "server/gateway", to: "server/peer", why: "they meet in store and controller: the gateway knows an archive, and not who else has one"},
		{from: "server/store", to: "server/controller", why: "the store serves, it does not know whom"},
		{from: "server/store", to: "scheduler", why: "the store keeps what it is given and decides nothing"},
		{from: "server/history", to: "server/store", why: "history must go on when etcd does not, and the other way round"},
		{from: "internal", to: "server", why: "plumbing has no domain noun", except: []string{"internal/cli", "internal/e2e", "internal/meshtest"}},
		{from: "internal", to: "prober", why: "plumbing has no domain noun", except: []string{"internal/cli", "internal/e2e", "internal/meshtest"}},
	}
}

func below(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func full(p string) string {
	if strings.Contains(strings.SplitN(p, "/", 2)[0], ".") || p == "net/http" {
		return p
	}
	return module + "/" + p
}

func TestImportArrowsPointOneWay(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		for _, r := range rules() {
			if !below(p.ImportPath, full(r.from)) || excepted(p.ImportPath, r.except) {
				continue
			}
			for _, d := range p.Deps {
				if below(d, full(r.to)) && !(r.to == "net/http" && mayLinkHTTP(p.ImportPath)) {
					t.Errorf("%s depends on %s, which it must not: %s", p.ImportPath, d, r.why)
					break
				}
			}
		}
		for _, d := range p.Imports {
			if below(d, full("cmd")) {
				t.Errorf("%s imports %s: nothing imports cmd, which is for flags and signals only", p.ImportPath, d)
			}
		}
	}
}

// mayLinkHTTP: the generated protos and the error vocabulary link net/http through gRPC; what the rule means is the pure packages.
func mayLinkHTTP(path string) bool { return !pure(path) }

func pure(path string) bool {
	for _, p := range []string{"verdict", "placement", "incident", "alert", "rollout", "grouping"} {
		if path == module+"/scheduler/"+p {
			return true
		}
	}
	return false
}

func TestPureDecisionsImportTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	found := 0
	for _, p := range list(t) {
		if !pure(p.ImportPath) {
			continue
		}
		found++
		for _, d := range p.Imports {
			if strings.Contains(strings.SplitN(d, "/", 2)[0], ".") && !pure(d) {
				t.Errorf("%s imports %s: values in, values out, and nothing but the standard library, so that a reader needs nothing else", p.ImportPath, d)
			}
			for _, no := range []string{"context", "os", "net", "log/slog", "sync"} {
				if d == no {
					t.Errorf("%s imports %s: a pure decision has no context, file, network, log or lock", p.ImportPath, d)
				}
			}
		}
	}
	if found != 6 {
		t.Errorf("found %d pure packages, want 6; the list in this test is out of date", found)
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if len(p.Doc) < 40 && !strings.Contains(p.ImportPath, "/proto/") {
			t.Errorf("%s has no package doc worth the name; say in a sentence or a page what it owns and promises", p.ImportPath)
		}
	}
}

func excepted(path string, except []string) bool {
	for _, e := range except {
		if below(path, full(e)) {
			return true
		}
	}
	return false
}

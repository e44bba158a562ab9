package members

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store/embedded"
)

func wantFault(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	f, ok := fault.From(err)
	if !ok || f.Code != code || !strings.Contains(f.Error(), text) {
		t.Errorf("got %v, want %s and a sentence with %q", err, code, text)
	}
}

func TestWrongAddressesAndNamesAreAnsweredWithWhatIsRight(t *testing.T) {
	for _, c := range []struct{ server, url, text string }{
		{"c", "10.0.0.3:2380", "write http://HOST:PORT"},
		{"c", "https://10.0.0.3:2380", "write http://HOST:PORT"},
		{"c", "http://10.0.0.3", "write http://HOST:PORT"},
		{"c", "http://10.0.0.3:0", "write http://HOST:PORT"},
		{"c", "http://10.0.0.3:2380/x", "write http://HOST:PORT"},
		{"c", "http://0.0.0.0:2380", "the machine's own address"},
		{"c", "", "write http://HOST:PORT"},
		{"C 1", "http://10.0.0.3:2380", "cannot be the name of a server"},
		{"", "http://10.0.0.3:2380", "cannot be the name of a server"},
	} {
		_, err := validate(&meshv1.AddMemberRequest{Server: c.server, PeerUrl: c.url})
		wantFault(t, err, codes.InvalidArgument, c.text)
	}
	if u, err := validate(&meshv1.AddMemberRequest{Server: "c", PeerUrl: "http://c.example.com:2380/"}); err != nil || u != "http://c.example.com:2380" {
		t.Errorf("%q, %v", u, err)
	}
}

// m is a member that has a vote and is alive.
func m(name string) *meshv1.Member {
	return &meshv1.Member{Name: "members/" + name, Id: name + "1", PeerUrls: []string{"http://10.0.0." + fmt.Sprint(name[0]-'a'+1) + ":2380"}, Started: true, Reachable: true}
}

func dead(name string) *meshv1.Member {
	x := m(name)
	x.Reachable = false
	return x
}

func joining(name string) *meshv1.Member {
	x := m(name)
	x.Learner = true
	return x
}

func TestWhoMayBeAdded(t *testing.T) {
	lone := m("a")
	lone.PeerUrls = []string{"http://127.0.0.1:0"}
	for _, c := range []struct {
		list []*meshv1.Member
		code codes.Code
		text string
	}{
		{[]*meshv1.Member{m("a")}, codes.OK, ""},
		{[]*meshv1.Member{m("a"), dead("b")}, codes.OK, ""},
		{[]*meshv1.Member{m("a"), dead("d")}, codes.AlreadyExists, "probemesh member remove d"},
		{[]*meshv1.Member{m("a"), joining("b")}, codes.FailedPrecondition, "one joins at a time"},
		{[]*meshv1.Member{lone}, codes.FailedPrecondition, "--etcd-listen-peer"},
	} {
		err := mayAdd(c.list, "d", "http://10.0.0.9:2380")
		if c.code == codes.OK {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wantFault(t, err, c.code, c.text)
	}
	wantFault(t, mayAdd([]*meshv1.Member{m("a")}, "d", "http://10.0.0.1:2380"), codes.AlreadyExists, "give each member its own")
}

func TestWhoMayBeRemoved(t *testing.T) {
	for _, c := range []struct {
		gone  *meshv1.Member
		left  []*meshv1.Member
		force bool
		text  string // of the refusal; empty for none
	}{
		{dead("c"), []*meshv1.Member{m("a"), m("b")}, false, ""},
		{m("c"), []*meshv1.Member{m("a"), m("b")}, false, "is alive"},
		{m("c"), []*meshv1.Member{m("a"), m("b")}, true, ""},
		{m("b"), []*meshv1.Member{m("a"), dead("c")}, true, "no majority"},
		{m("a"), nil, true, "only member"},
		{m("a"), []*meshv1.Member{joining("b")}, true, "only member"},
		{joining("b"), []*meshv1.Member{m("a")}, false, ""},
		{m("b"), []*meshv1.Member{m("a")}, true, ""},
	} {
		err := mayRemove(c.gone, c.left, c.force)
		if c.text == "" {
			if err != nil {
				t.Errorf("%s: %v", c.gone.GetName(), err)
			}
			continue
		}
		wantFault(t, err, codes.FailedPrecondition, c.text)
	}
}

func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// From one member to three on a real etcd; then one dies and is replaced. Writes go on meanwhile.
func TestMembersJoinLeaveAndAreReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("starts members")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := func(cfg embedded.Config) *embedded.Member {
		t.Helper()
		cfg.Dir = t.TempDir()
		x, err := embedded.Start(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	a := start(embedded.Config{Name: "a", ListenPeer: "http://" + address(t)})
	defer a.Close()
	s := New(a.Client(), false, a.ClusterLeader, slog.New(slog.DiscardHandler))
	join := func(name string) *embedded.Member {
		t.Helper()
		url := "http://" + address(t)
		r, err := s.AddMember(ctx, &meshv1.AddMemberRequest{Server: name, PeerUrl: url})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Client().Put(ctx, "k", name); err != nil {
			t.Fatalf("no write while %s is awaited: %v", name, err)
		}
		_, err = s.AddMember(ctx, &meshv1.AddMemberRequest{Server: "x", PeerUrl: "http://127.0.0.1:9"})
		wantFault(t, err, codes.FailedPrecondition, "one joins at a time")
		x := start(embedded.Config{Name: name, ListenPeer: url, InitialCluster: r.GetInitialCluster(), ClusterState: "existing"})
		x.Tend(ctx)
		got, err := x.Client().Get(ctx, "k")
		if err != nil || string(got.Kvs[0].Value) != name {
			t.Fatalf("%s reads %v, %v", name, got, err)
		}
		return x
	}
	b := join("b")
	defer b.Close()
	c := join("c")
	list := func() string {
		t.Helper()
		r, err := s.ListMembers(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, x := range r.GetMembers() {
			all = append(all, fmt.Sprintf("%s vote=%t alive=%t", x.GetName(), x.GetStarted() && !x.GetLearner(), x.GetReachable()))
		}
		return strings.Join(all, ", ")
	}
	if got, want := list(), "members/a vote=true alive=true, members/b vote=true alive=true, members/c vote=true alive=true"; got != want {
		t.Fatalf("%s\nwant %s", got, want)
	}
	_, err := s.RemoveMember(ctx, &meshv1.RemoveMemberRequest{Name: "c"})
	wantFault(t, err, codes.FailedPrecondition, "is alive")
	_, err = s.RemoveMember(ctx, &meshv1.RemoveMemberRequest{Name: "d"})
	wantFault(t, err, codes.NotFound, "members are a, b, c")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := s.RemoveMember(ctx, &meshv1.RemoveMemberRequest{Name: "members/c"})
	if err != nil || len(r.GetMembers()) != 2 {
		t.Fatalf("%v, %v", r, err)
	}
	c = join("c")
	defer c.Close()
	if _, err := s.RemoveMember(ctx, &meshv1.RemoveMemberRequest{Name: "b", Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.Wait(ctx); err == nil || !strings.Contains(err.Error(), "was removed from its cluster") {
		t.Fatalf("the removed member ended with %v", err)
	}
}

// A lone member that is started with an address for others tells the cluster so, and others can join.
func TestMemberThatIsGivenAnAddressTellsIt(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, err := embedded.Start(ctx, embedded.Config{Name: "a", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := New(a.Client(), false, a.ClusterLeader, slog.New(slog.DiscardHandler))
	_, err = s.AddMember(ctx, &meshv1.AddMemberRequest{Server: "b", PeerUrl: "http://10.0.0.2:2380"})
	wantFault(t, err, codes.FailedPrecondition, "--etcd-listen-peer")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	url := "http://" + address(t)
	if a, err = embedded.Start(ctx, embedded.Config{Name: "a", Dir: dir, ListenPeer: url}); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.Tend(ctx)
	r, err := New(a.Client(), false, a.ClusterLeader, slog.New(slog.DiscardHandler)).ListMembers(ctx, nil)
	if err != nil || len(r.GetMembers()) != 1 || r.GetMembers()[0].GetPeerUrls()[0] != url || !r.GetMembers()[0].GetLeader() {
		t.Fatalf("%v, %v", r, err)
	}
}

func TestExternalClusterIsChangedByItsOwnTools(t *testing.T) {
	s := New(nil, true, nil, slog.New(slog.DiscardHandler))
	_, err := s.AddMember(t.Context(), &meshv1.AddMemberRequest{Server: "b", PeerUrl: "http://10.0.0.2:2380"})
	wantFault(t, err, codes.FailedPrecondition, "etcdctl member")
}

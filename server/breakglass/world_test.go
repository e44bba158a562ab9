package breakglass_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/etcdfake"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/breakglass"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/store"
)

const pagerURL = "https://pager.example.com/hook"

// got is what a receiver was sent, by whichever way.
type got struct {
	server string
	url    string
	key    string
	n      *meshv1.Notification
}

// world is three servers on one etcd in memory that hear each other's beats, with a prober each, and receivers that remember what they were told.
type world struct {
	t    *testing.T
	etcd *etcdfake.Server
	file string

	mu      sync.Mutex
	servers map[string]*node
	deaf    map[string]bool // "a<b": a does not hear b
	down    map[string]bool
	told    []got
	broken  bool // receivers answer nothing
}

// node is one server's process.
type node struct {
	w     *world
	name  string
	dir   string
	link  *etcdfake.Link
	store *store.Store
	c     *controller.Controller
	glass *breakglass.Glass
	stop  context.CancelFunc
	group sync.WaitGroup
	beats map[string]*peerv1.Beat // newest of each other server; guarded by world.mu
	heard map[string]time.Time
}

func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	file := writeFile(t, "receivers:\n  - name: pager\n    webhook: {url: '"+pagerURL+"'}\n")
	dirs := map[string]string{"a": t.TempDir(), "b": t.TempDir(), "c": t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, etcd: etcdfake.New(t), file: file, servers: map[string]*node{}, deaf: map[string]bool{}, down: map[string]bool{}}
		defer func() { // also when f gives up: a bubble that ends before its goroutines ends the tests of the whole package
			for _, n := range w.nodes() {
				n.end()
			}
		}()
		for _, n := range []string{"a", "b", "c"} {
			w.start(n, dirs[n])
			time.Sleep(100 * time.Millisecond)
		}
		w.mesh()
		f(w)
	})
}

func (w *world) nodes() (list []*node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range []string{"a", "b", "c"} {
		if n := w.servers[name]; n != nil {
			list = append(list, n)
		}
	}
	return list
}

// start starts a server; one of that name must not run.
func (w *world) start(name, dir string) *node {
	w.t.Helper()
	n := &node{w: w, name: name, dir: dir, beats: map[string]*peerv1.Beat{}, heard: map[string]time.Time{}}
	client, link := w.etcd.Link(w.t)
	n.link, n.store = link, store.New(client, store.Options{})
	pulse := store.NewPulse(n.store.Ready, nil, nil)
	var err error
	n.glass, err = breakglass.New(breakglass.Config{Server: name, Dir: dir, File: w.file}, breakglass.Deps{Pulse: pulse, Closed: n.store.ClosedOutages, Send: n.send})
	if err != nil {
		w.t.Fatal(err)
	}
	n.c, err = controller.New(controller.Config{Server: name}, controller.Deps{
		Store: n.store, Notifier: n, Peers: n, Glass: n.glass.Take, Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{}, Tracer: tracenoop.Tracer{},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	elect := election.New(client, election.Config{Server: "servers/" + name, BootID: fmt.Sprint(time.Now().UnixNano())})
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	m := mesh{n.c, n}
	n.glass.Begin(m)
	n.group.Go(func() { _ = n.c.Serve(ctx) })
	n.group.Go(func() { _ = elect.Run(ctx, n.c.Lead) })
	n.group.Go(func() { _ = pulse.Run(ctx) })
	n.group.Go(func() { _ = n.glass.Run(ctx, m) })
	n.group.Go(func() { n.beat(ctx) })
	n.group.Go(func() {
		_ = n.store.KeepServer(ctx, &statev1.ServerRecord{Name: "servers/" + name, BootId: name}, 5*time.Second)
	})
	w.mu.Lock()
	w.servers[name] = n
	w.mu.Unlock()
	return n
}

// end ends a server's process.
func (n *node) end() {
	n.w.mu.Lock()
	if n.w.servers[n.name] == n {
		delete(n.w.servers, n.name)
	}
	n.w.mu.Unlock()
	n.stop()
	n.group.Wait()
}

type mesh struct {
	*controller.Controller
	n *node
}

// Others are the other two, heard or not.
func (m mesh) Others() (list []breakglass.Peer) {
	m.n.w.mu.Lock()
	defer m.n.w.mu.Unlock()
	for _, name := range []string{"a", "b", "c"} {
		if name != m.n.name {
			heard := time.Since(m.n.heard[name]) < 600*time.Millisecond
			list = append(list, breakglass.Peer{Server: "servers/" + name, Heard: heard, Beat: m.n.beats[name]})
		}
	}
	return list
}

// beat sends beats to those that hear this server.
func (n *node) beat(ctx context.Context) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		b := &peerv1.Beat{Time: timestamppb.Now()}
		n.c.FillBeat(b)
		n.glass.Fill(b)
		for _, o := range n.w.nodes() {
			n.w.mu.Lock()
			if o != n && !n.w.deaf[o.name+"<"+n.name] {
				o.beats[n.name], o.heard[n.name] = proto.CloneOf(b), time.Now()
			}
			n.w.mu.Unlock()
		}
	}
}

// send is what a break-glass message meets.
func (n *node) send(_ context.Context, r *meshv1.Receiver, key string, m *meshv1.Notification) breakglass.Answer {
	time.Sleep(50 * time.Millisecond)
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.w.broken {
		return breakglass.Answer{Problem: "503 Service Unavailable"}
	}
	n.w.told = append(n.w.told, got{n.name, r.GetWebhook().GetUrl(), key, proto.CloneOf(m)})
	return breakglass.Answer{Delivered: true}
}

// Run delivers what the outbox owes, as notify does.
func (n *node) Run(ctx context.Context, fence store.Fence) error {
	for ctx.Err() == nil {
		entries, _, err := n.store.ListOutbox(ctx)
		for _, e := range entries {
			r, rerr := n.store.GetReceiver(ctx, e.Value.GetNotification().GetReceiver())
			if err != nil || rerr != nil || n.store.DeleteOutbox(ctx, fence, e.Value.GetId()) != nil {
				continue
			}
			n.w.mu.Lock()
			n.w.told = append(n.w.told, got{n.name, r.GetWebhook().GetUrl(), e.Value.GetId(), e.Value.GetNotification()})
			n.w.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// The controller's peers: votes and presence go to those that hear this server.
func (n *node) each(f func(o *node)) {
	go func() {
		for _, o := range n.w.nodes() {
			n.w.mu.Lock()
			deaf := o == n || n.w.deaf[o.name+"<"+n.name]
			n.w.mu.Unlock()
			if !deaf {
				f(o)
			}
		}
	}()
}

func (n *node) Presence(p *peerv1.Presence) {
	n.each(func(o *node) { o.c.PeerPresences("servers/"+n.name, false, []*peerv1.Presence{proto.CloneOf(p)}) })
}

func (n *node) Votes(results []*meshv1.Result) {
	var copies []*meshv1.Result
	for _, r := range results {
		copies = append(copies, proto.CloneOf(r))
	}
	n.each(func(o *node) { o.c.PeerVotes("servers/"+n.name, copies) })
}

func (n *node) Ask(server, prober string, run *meshv1.RunNow) bool {
	run = proto.CloneOf(run)
	n.each(func(o *node) {
		if "servers/"+o.name == server {
			o.c.RunHere(prober, run)
		}
	})
	return true
}

func (n *node) Refuse(string, string, string) {}

// session is a prober's session at a server.
type session struct {
	n    *node
	name string
}

func (s *session) BootID() string            { return "boot-" + s.name }
func (s *session) Wake()                     {}
func (s *session) Redirect([]string, string) {}
func (s *session) End(string)                {}
func (s *session) Facts() controller.SessionFacts {
	return controller.SessionFacts{InSync: true, Since: time.Now()}
}

func (s *session) RunNow(r *meshv1.RunNow) bool {
	go s.n.cast(s.name, r.GetCheck(), r.GetRunId())
	return true
}

// attach gives a prober a session at a server.
func (w *world) attach(prober, server string) {
	w.t.Helper()
	n := w.servers[server]
	hello := &meshv1.Hello{Prober: prober, BootId: "boot-" + prober, Datacenter: "dc-" + prober, Build: "1", Capabilities: []string{"tcp", "ipv4"}}
	if err := n.c.Attach(w.t.Context(), hello, &session{n, prober}); err != nil {
		w.t.Fatal(err)
	}
}

// mesh makes receivers, checks and probers, and waits until every server shows all checks as UP.
func (w *world) mesh() {
	w.t.Helper()
	for _, s := range []string{"a", "b", "c"} {
		w.attach("p"+s, s)
	}
	w.makeChecks("shop")
	for _, n := range w.nodes() {
		w.want(n.name, "shop", meshv1.CheckStatus_UP)
	}
}

func (w *world) makeChecks(names ...string) {
	s := w.nodes()[0].store
	for _, r := range []*meshv1.Receiver{{Name: "receivers/ops", Webhook: &meshv1.Webhook{Url: pagerURL}}, {Name: "receivers/chat", Webhook: &meshv1.Webhook{Url: "https://chat.example.com"}}} {
		_, _ = s.CreateReceiver(w.t.Context(), r) // there already, the second time
	}
	for _, c := range names {
		if _, err := s.CreateCheck(w.t.Context(), &meshv1.Check{Name: "checks/" + c, Uri: "tcp://example.com:443", Interval: durationpb.New(10 * time.Second),
			Timeout: durationpb.New(5 * time.Second), Probers: 3, Quorum: 2, Receivers: []string{"receivers/ops", "receivers/chat"}}); err != nil {
			w.t.Fatal(err)
		}
	}
	time.Sleep(3 * time.Second)
	w.probe(30 * time.Second)
}

func (w *world) want(server, check string, v meshv1.CheckStatus_Verdict) {
	w.t.Helper()
	if s, _ := w.servers[server].c.Status("checks/" + check); s.GetVerdict() != v {
		w.t.Fatalf("%s shows %v", server, s)
	}
}

// cast is a probe of a check by a prober that has its session here.
func (n *node) cast(prober, check, run string) {
	for _, x := range n.c.Difference(prober, nil).Upserts {
		if x.GetCheck().GetName() != check {
			continue
		}
		n.w.mu.Lock()
		down := n.w.down[check]
		n.w.mu.Unlock()
		r := &meshv1.Result{Check: check, Prober: "probers/" + prober, StartTime: timestamppb.Now(), Duration: durationpb.New(time.Millisecond), RunId: run,
			CheckRevision: x.GetCheck().GetRevision(), Outcome: meshv1.Result_OK}
		if down {
			r.Outcome, r.Error = meshv1.Result_FAIL, "connection refused"
		}
		n.c.Cast(prober, []*meshv1.Result{r})
	}
}

// probe lets every prober probe all checks every ten seconds for so long.
func (w *world) probe(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
		for _, n := range w.nodes() {
			for _, x := range n.c.Difference("p"+n.name, nil).Upserts {
				n.cast("p"+n.name, x.GetCheck().GetName(), "")
			}
		}
	}
}

func (w *world) setDown(down bool, checks ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range checks {
		w.down["checks/"+c] = down
	}
}

// at is what a receiver, by its URL, was told: "who transition [marked]" and the keys.
func (w *world) at(url string) (list, keys []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.told {
		if g.url == url {
			what := g.n.GetTransition().String()
			if g.n.GetBreakGlass() {
				what = "marked " + what
			}
			list, keys = append(list, what), append(keys, g.key)
		}
	}
	return list, keys
}

// affected is how many checks the messages to a receiver were about, in all.
func (w *world) affected(url string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.told {
		if g.url == url {
			n += max(1, int(g.n.GetAffectedCount()))
		}
	}
	return n
}

func (w *world) wantTold(url string, want ...string) (keys []string) {
	w.t.Helper()
	list, keys := w.at(url)
	if !slices.Equal(list, want) {
		w.t.Fatalf("%s was told %q under %q, want %q", url, list, keys, want)
	}
	return keys
}

// incidents are all incidents, open and closed.
func (w *world) incidents() (list []*meshv1.Incident) {
	w.t.Helper()
	s := w.nodes()[0].store
	open, _, err := s.ListOpenIncidents(w.t.Context())
	closed, _, err2 := s.ListClosedIncidents(w.t.Context(), "", 0)
	if err != nil || err2 != nil {
		w.t.Fatal(err, err2)
	}
	for _, v := range append(open, closed...) {
		list = append(list, v.Value.GetIncident())
	}
	return list
}

func timeline(i *meshv1.Incident) string {
	var b strings.Builder
	for _, e := range i.GetTimeline() {
		fmt.Fprintf(&b, "%s %s\n", e.GetEvent(), e.GetText())
	}
	return b.String()
}

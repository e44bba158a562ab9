package drill

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/probemesh/probemesh/internal/localmesh"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Mesh is a running local mesh and the clients of each of its servers.
type Mesh struct {
	*localmesh.Mesh

	run     *Run
	clients map[string]*Client
	checks  []string // bare names of those of Watch
}

// Client is what a drill asks of one server.
type Client struct {
	Checks    meshv1.CheckServiceClient
	Statuses  meshv1.StatusServiceClient
	Incidents meshv1.IncidentServiceClient
	Probers   meshv1.ProberServiceClient
	Servers   meshv1.ServerServiceClient
	History   meshv1.HistoryServiceClient
}

// startLimit is how long a mesh may take until every server is ready: an etcd election, on a busy machine.
const startLimit = 90 * time.Second

// StartMesh starts a mesh of three datacenters with a server and a prober each, below the run's data directory, and waits until it is ready and somebody leads.
// change, if not nil, changes the options first. The mesh is stopped at the end of the run. A second mesh needs another Data: change must say so.
func (r *Run) StartMesh(ctx context.Context, change func(*localmesh.Options)) (*Mesh, error) {
	o := localmesh.Options{Program: r.Program, Data: filepath.Join(r.Data, "mesh"), Datacenters: 3, Probers: 1, LeaseTTL: r.LeaseTTL, EtcdClients: true,
		CleanEnv: true, DieWithParent: true}
	if change != nil {
		change(&o)
	}
	local, err := localmesh.New(o)
	if err != nil {
		return nil, err
	}
	r.Cleanup(local.Stop)
	m := &Mesh{Mesh: local, run: r, clients: map[string]*Client{}}
	for _, s := range local.Servers() {
		if m.clients[s.Name], err = r.dial(s.GRPC); err != nil {
			return nil, err
		}
	}
	r.Say("starting %d servers and %d probers on %s", len(m.Servers()), len(m.Probers()), o.Data)
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := local.Start(starting); err != nil {
		return nil, err
	}
	leader, term, err := m.AwaitLeader(ctx, startLimit, 0)
	if err != nil {
		return nil, err
	}
	r.Say("the mesh is up: %s leads term %d", leader, term)
	return m, nil
}

func (r *Run) dial(address string) (*Client, error) {
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second}))
	if err != nil {
		return nil, err
	}
	r.Cleanup(func() { _ = cc.Close() })
	return &Client{Checks: meshv1.NewCheckServiceClient(cc), Statuses: meshv1.NewStatusServiceClient(cc), Incidents: meshv1.NewIncidentServiceClient(cc),
		Probers: meshv1.NewProberServiceClient(cc), Servers: meshv1.NewServerServiceClient(cc), History: meshv1.NewHistoryServiceClient(cc)}, nil
}

// Client asks a server, and only that one.
func (m *Mesh) Client(s *localmesh.Member) *Client { return m.clients[s.Name] }

// askLimit bounds one question to one server.
const askLimit = 2 * time.Second

// ServerView is what one server says of who leads.
type ServerView struct {
	Leader string // bare name; empty for nobody
	Term   int64
	All    []*meshv1.Server
}

// View asks one server who leads.
func (m *Mesh) View(ctx context.Context, s *localmesh.Member) (ServerView, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	resp, err := m.Client(s).Servers.ListServers(ctx, &meshv1.ListServersRequest{})
	if err != nil {
		return ServerView{}, err
	}
	v := ServerView{All: resp.GetServers()}
	for _, x := range resp.GetServers() {
		v.Term = int64(x.GetTerm())
		if x.GetLeader() {
			v.Leader = bare(x.GetName())
		}
	}
	return v, nil
}

// Sessions is how many sessions of probers a server holds, as it says itself.
func (m *Mesh) Sessions(ctx context.Context, s *localmesh.Member) (int, error) {
	v, err := m.View(ctx, s)
	for _, x := range v.All {
		if bare(x.GetName()) == s.Name {
			return int(x.GetSessions()), err
		}
	}
	return 0, err
}

// AwaitLeader waits until a server that is alive says that one that is alive leads, in a term after the given one.
func (m *Mesh) AwaitLeader(ctx context.Context, limit time.Duration, after int64) (leader *localmesh.Member, term int64, err error) {
	type found struct {
		name string
		term int64
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	first := make(chan found, len(m.Servers()))
	asked := 0
	done := make(chan struct{})
	for _, s := range m.Servers() {
		if !s.Alive() {
			continue
		}
		asked++
		go func() {
			defer func() { done <- struct{}{} }()
			_ = Until(ctx, "a leader", limit, func() (bool, string) {
				v, err := m.View(ctx, s)
				if err != nil || v.Leader == "" || v.Term <= after || !m.Server(v.Leader).Alive() {
					return false, fmt.Sprint(v.Leader, v.Term, err)
				}
				first <- found{v.Leader, v.Term}
				return true, ""
			})
		}()
	}
	defer func() {
		cancel()
		for range asked {
			<-done
		}
	}()
	select {
	case f := <-first:
		return m.Server(f.name), f.term, nil
	case <-ctx.Done():
		return nil, 0, fmt.Errorf("no server led a term after %d within %s", after, limit)
	}
}

// Leader is the server that leads now, and its term.
func (m *Mesh) Leader(ctx context.Context) (*localmesh.Member, int64, error) {
	return m.AwaitLeader(ctx, startLimit, 0)
}

// Others are the servers that run, but that one.
func (m *Mesh) Others(x *localmesh.Member) []*localmesh.Member {
	var out []*localmesh.Member
	for _, s := range m.Servers() {
		if s != x && s.Alive() {
			out = append(out, s)
		}
	}
	return out
}

// settleLimit is how long a mesh may take to be whole again after a member has come back.
const settleLimit = 60 * time.Second

// Settle waits until the mesh is whole: every member runs, every server says the same of who leads, and at each of them every check has a fresh vote of each of
// its probers and the verdict that its target deserves.
func (m *Mesh) Settle(ctx context.Context) error {
	for _, x := range m.Members() {
		if !x.Alive() {
			return fmt.Errorf("%s does not run (%v); its log is %s", x, x.Err(), x.Log)
		}
	}
	return Until(ctx, "the mesh is whole", settleLimit, func() (bool, string) {
		var first ServerView
		for i, s := range m.Servers() {
			v, err := m.View(ctx, s)
			if err != nil {
				return false, fmt.Sprintf("%s: %v", s, err)
			}
			if i == 0 {
				first = v
			}
			if v.Leader == "" || v.Leader != first.Leader || v.Term != first.Term || len(v.All) != len(m.Servers()) {
				return false, fmt.Sprintf("%s says that %q leads term %d of %d servers, %s that %q leads term %d", s, v.Leader, v.Term, len(v.All), m.Servers()[0], first.Leader, first.Term)
			}
			if why := m.unsettled(ctx, s); why != "" {
				return false, fmt.Sprintf("%s: %s", s, why)
			}
		}
		return true, ""
	})
}

// unsettled says what is not yet as it should be at one server.
func (m *Mesh) unsettled(ctx context.Context, s *localmesh.Member) string {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	resp, err := m.Client(s).Statuses.ListStatuses(ctx, &meshv1.ListStatusesRequest{PageSize: 1000})
	if err != nil {
		return err.Error()
	}
	down := map[string]bool{}
	for _, o := range m.run.Truth() {
		if o.Up.IsZero() {
			down[o.Check] = true
		}
	}
	seen := map[string]bool{}
	for _, x := range resp.GetStatuses() {
		name, fresh := bare(x.GetCheck()), 0
		for _, v := range x.GetVotes() {
			if v.GetFresh() {
				fresh++
			}
		}
		want := meshv1.CheckStatus_UP
		if down[name] {
			want = meshv1.CheckStatus_DOWN
		}
		if fresh < min(probersOfCheck, len(m.Probers())) || x.GetVerdict() != want {
			return fmt.Sprintf("%s is %s by %d fresh votes; %s by %d is awaited: %s", name, x.GetVerdict(), fresh, want, probersOfCheck, x.GetSummary())
		}
		seen[name] = true
	}
	for _, c := range m.checks {
		if !seen[c] {
			return "it does not know the check " + c
		}
	}
	return ""
}

// AwaitProbers waits until every prober that runs has a session, as the leader sees it.
func (m *Mesh) AwaitProbers(ctx context.Context) error {
	return Until(ctx, "every prober has a session", settleLimit, func() (bool, string) {
		leader, _, err := m.Leader(ctx)
		if err != nil {
			return false, err.Error()
		}
		ask, cancel := context.WithTimeout(ctx, askLimit)
		defer cancel()
		resp, err := m.Client(leader).Probers.ListProbers(ask, &meshv1.ListProbersRequest{})
		if err != nil {
			return false, err.Error()
		}
		online := map[string]bool{}
		for _, p := range resp.GetProbers() {
			online[bare(p.GetName())] = p.GetState() != meshv1.Prober_OFFLINE
		}
		for _, p := range m.Probers() {
			if p.Alive() && !online[p.Name] {
				return false, p.String() + " has none"
			}
		}
		return true, ""
	})
}

// AllIncidents are those that are open or were, as a server that runs tells.
func (m *Mesh) AllIncidents(ctx context.Context) ([]*meshv1.Incident, error) {
	leader, _, err := m.Leader(ctx)
	if err != nil {
		return nil, err
	}
	var out []*meshv1.Incident
	for token := ""; ; {
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		resp, err := m.Client(leader).Incidents.ListIncidents(ask, &meshv1.ListIncidentsRequest{PageSize: 1000, PageToken: token})
		cancel()
		if err != nil {
			return nil, err
		}
		out = append(out, resp.GetIncidents()...)
		if token = resp.GetNextPageToken(); token == "" {
			return out, nil
		}
	}
}

package localmesh

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// Options say what a local mesh consists of.
type Options struct {
	// Program is the path of the probemesh binary that every member runs.
	Program string
	// Data is the directory of everything: the members' data, their logs, mesh.json and addresses.json. It is made when it does not exist.
	Data string
	// Datacenters is how many there are, 1 to MaxDatacenters, each with a server that has an etcd member.
	Datacenters int
	// Probers is how many run in each datacenter, 0 to MaxProbers.
	Probers int
	// GRPCListen and HTTPListen are the addresses of the first server; the others' ports lie two apart. Empty or port 0: free ones.
	GRPCListen, HTTPListen string
	// Host gives the host on which the server of a datacenter listens, for datacenters with a network of their own; the ports are then 7700 (gRPC), 7701 (HTTP),
	// 2380 and 2379 (etcd). Nil: all listen on 127.0.0.1.
	Host func(datacenter string) string
	// LeaseTTL is how long a silent leader keeps its term. 0: the server's default.
	LeaseTTL time.Duration
	// EtcdClients opens a port at each etcd member for clients such as etcdctl; [Server.EtcdClient] says which.
	EtcdClients bool
	// Args gives further arguments for a member; nil gives none. It is asked at each start, so a member may be started again with others.
	Args func(*Member) []string
	// Env gives further environment variables (KEY=VALUE) for a member; nil gives none.
	Env func(*Member) []string
	// CleanEnv keeps PROBEMESH_ and OTEL_ variables of this process from the members: a measurement must not depend on them.
	CleanEnv bool
	// Launcher changes a member's command just before it is started: to run it through another program, in a network namespace, or with a file descriptor
	// more. What runs in the end must be the process that was started (exec, not fork), so that signals reach it. Nil changes nothing.
	Launcher func(*Member, *exec.Cmd) error
	// DieWithParent kills members at once when this process dies, also those that are paused then. Only on Linux; elsewhere it does nothing.
	DieWithParent bool
}

// Mesh is the processes of a local mesh. [New] makes one; [Mesh.Stop] ends it.
type Mesh struct {
	options Options
	plan    *Plan
	servers []*Member
	probers []*Member
	ended   chan Ending
	thread  *thread
	lock    *fileutil.LockedFile // the data directory is ours
	ports   *block               // nil when the user chose the ports

	mu      sync.Mutex
	written bool // addresses.json says what runs
}

// Ending is the end of a member's process.
type Ending struct {
	Member *Member
	// PID was its number.
	PID int
	// Err is nil for a process that ended with code 0, else as of [exec.Cmd.Wait].
	Err error
}

// New plans a mesh, or reads the plan of an earlier run on the same data. It takes the directory for this process, which a second mesh on it is refused for, starts
// no process, and must be followed by Stop. Its errors are sentences for users.
func New(o Options) (*Mesh, error) {
	if o.Datacenters < 1 || o.Datacenters > MaxDatacenters || o.Probers < 0 || o.Probers > MaxProbers {
		return nil, fmt.Errorf("%d datacenters with %d probers each: choose 1 to %d datacenters with at most %d probers each", o.Datacenters, o.Probers, MaxDatacenters, MaxProbers)
	}
	lock, err := claim(o.Data)
	if err != nil {
		return nil, err
	}
	p, held, err := plan(o)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	m := &Mesh{options: o, plan: p, lock: lock, ports: held, ended: make(chan Ending, 256), thread: newThread()}
	var cluster []string
	for _, s := range p.Servers {
		cluster = append(cluster, s.Name+"=http://"+s.Peer)
	}
	for i := range p.Servers {
		m.servers = append(m.servers, m.server(p.Servers[i], strings.Join(cluster, ",")))
	}
	for i := range p.Probers {
		m.probers = append(m.probers, m.prober(p.Probers[i], strings.Join(p.addressesFrom(p.Probers[i].Datacenter), ",")))
	}
	return m, nil
}

func (m *Mesh) server(s Server, cluster string) *Member {
	data := filepath.Join(m.options.Data, s.Datacenter, "server")
	args := []string{"server", "--name", s.Name, "--datacenter", s.Datacenter, "--data", data, "--grpc-listen", s.GRPC, "--http-listen", s.HTTP,
		"--etcd-listen-peer", "http://" + s.Peer, "--etcd-initial-cluster", cluster}
	if m.options.LeaseTTL > 0 {
		args = append(args, "--lease-ttl", m.options.LeaseTTL.String())
	}
	if s.EtcdClient != "" {
		args = append(args, "--etcd-listen-client", "http://"+s.EtcdClient)
	}
	return &Member{Kind: KindServer, Name: s.Name, Datacenter: s.Datacenter, Data: data, GRPC: s.GRPC, HTTP: s.HTTP, EtcdClient: s.EtcdClient,
		Log: filepath.Join(m.options.Data, "server-"+s.Name+".log"), mesh: m, args: args}
}

func (m *Mesh) prober(p Prober, servers string) *Member {
	data := filepath.Join(m.options.Data, p.Datacenter, "prober-"+p.Name)
	return &Member{Kind: KindProber, Name: p.Name, Datacenter: p.Datacenter, Data: data, Log: filepath.Join(m.options.Data, "prober-"+p.Name+".log"), mesh: m,
		args: []string{"prober", "--name", p.Name, "--datacenter", p.Datacenter, "--data", data, "--server", servers}}
}

// Servers are the members that are servers, by datacenter. The caller must not change the slice.
func (m *Mesh) Servers() []*Member { return m.servers }

// Probers are the members that are probers, by datacenter. The caller must not change the slice.
func (m *Mesh) Probers() []*Member { return m.probers }

// Server is the server of that name. It panics when there is none: the caller has mistaken it.
func (m *Mesh) Server(name string) *Member { return named(m.servers, name) }

// Prober is the prober of that name. It panics when there is none: the caller has mistaken it.
func (m *Mesh) Prober(name string) *Member { return named(m.probers, name) }

func named(list []*Member, name string) *Member {
	for _, x := range list {
		if x.Name == name {
			return x
		}
	}
	panic(fmt.Sprintf("localmesh: there is no member %q", name))
}

// Members are all of them, servers first.
func (m *Mesh) Members() []*Member { return append(append([]*Member{}, m.servers...), m.probers...) }

// Data is the directory of everything.
func (m *Mesh) Data() string { return m.options.Data }

// Addresses are the gRPC addresses of all servers, with commas between them, as --server takes them.
func (m *Mesh) Addresses() string {
	var all []string
	for _, s := range m.servers {
		all = append(all, s.GRPC)
	}
	return strings.Join(all, ",")
}

// Ended gives the end of every process, wanted or not. It holds 256; the ends that nobody takes after that are not given.
func (m *Mesh) Ended() <-chan Ending { return m.ended }

// Start starts every member, as soon as nothing listens at their addresses any more (8 s at most), waits until every server is ready, and writes addresses.json. A member that ends meanwhile is an error, which names its log; so is
// the end of ctx. What was started runs on until Stop.
func (m *Mesh) Start(ctx context.Context) error {
	if err := os.Remove(filepath.Join(m.options.Data, AddressesFile)); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := m.awaitPorts(ctx); err != nil {
		return err
	}
	for _, x := range m.Members() {
		if err := x.Start(); err != nil {
			return err
		}
	}
	for _, s := range m.servers {
		if err := m.Await(ctx, s); err != nil {
			return err
		}
	}
	m.mu.Lock()
	m.written = true
	m.mu.Unlock()
	return m.WriteAddresses()
}

// Await waits until a server is ready: it has written its own addresses.json. A prober is ready when it runs. It fails when the process ends, or ctx does.
func (m *Mesh) Await(ctx context.Context, x *Member) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	done := x.Done()
	for {
		if x.Kind == KindProber && x.Alive() {
			return nil
		}
		if b, err := os.ReadFile(filepath.Join(x.Data, AddressesFile)); err == nil && strings.Contains(string(b), x.GRPC) && x.Kind == KindServer {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", x, ctx.Err())
		case <-done:
			if said := x.lastWords(); said != "" {
				return fmt.Errorf("%s ended before it was ready: %s\nits log is %s", x, said, x.Log)
			}
			return fmt.Errorf("%s ended before it was ready (%v); its log is %s", x, x.Err(), x.Log)
		case <-t.C:
		}
	}
}

// Published is what addresses.json says: the plan without what only the members need, with the numbers of the processes that run now.
func (m *Mesh) Published() *Plan {
	p := &Plan{}
	for i, s := range m.plan.Servers {
		s.Peer, s.PID = "", m.servers[i].PID()
		p.Servers = append(p.Servers, s)
	}
	for i, x := range m.plan.Probers {
		x.PID = m.probers[i].PID()
		p.Probers = append(p.Probers, x)
	}
	return p
}

// WriteAddresses writes addresses.json anew, whole or not at all. A member that is started again after Start does so by itself.
func (m *Mesh) WriteAddresses() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.written {
		return nil
	}
	b, err := json.MarshalIndent(m.Published(), "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(m.options.Data, AddressesFile)
	if err := os.WriteFile(path+".tmp", append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write down the addresses: %w", err)
	}
	return os.Rename(path+".tmp", path)
}

// stopGrace is how long members may take to stop before they are killed: more than a member itself allows (20 s).
const stopGrace = 25 * time.Second

// Stop ends every member, probers first so that their goodbyes and last results find servers, and waits for all. One that does not stop within 25 s is killed.
// It may be called twice.
func (m *Mesh) Stop() {
	for _, list := range [][]*Member{m.probers, m.servers} {
		for _, x := range list {
			x.hangUp()
		}
	}
	late := time.After(stopGrace)
	for _, x := range m.Members() {
		select {
		case <-x.Done():
		case <-late:
			late = closed()
			_ = x.Kill()
		}
	}
	m.thread.stop()
	m.ports.release()
	_ = m.lock.Close() // a second close does nothing
}

func closed() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}

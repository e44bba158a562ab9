package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/version"
	"github.com/probemesh/probemesh/server"
)

// planFile is where a local mesh keeps its members and their ports, so that it starts again as it was: etcd's members know each other by their ports.
const planFile = "mesh.json"

// Limits of a local mesh: more does not fit on one machine in a way that shows anything.
const (
	maxDatacenters = 5
	maxProbersEach = 10
)

// localMesh is a mesh of processes on this machine: in each datacenter a server with an etcd member, and probers.
type localMesh struct {
	Servers []localServer `json:"servers"`
	Probers []localProber `json:"probers"`
}

type localServer struct {
	Name       string `json:"name"`
	Datacenter string `json:"datacenter"`
	GRPC       string `json:"grpc"`
	HTTP       string `json:"http"`
	Peer       string `json:"peer,omitempty"`
	PID        int    `json:"pid,omitempty"`
}

type localProber struct {
	Name       string `json:"name"`
	Datacenter string `json:"datacenter"`
	PID        int    `json:"pid,omitempty"`
}

// planLocalMesh reads the plan of an earlier run, or makes one.
func planLocalMesh(cfg server.Config, datacenters, probers int) (*localMesh, error) {
	path := filepath.Join(cfg.Data, planFile)
	if b, err := os.ReadFile(path); err == nil {
		var m localMesh
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, fmt.Errorf("%s is damaged (%w); choose another --data", path, err)
		}
		if len(m.Servers) != datacenters || len(m.Probers) != datacenters*probers {
			return nil, fmt.Errorf("%s holds a mesh of %d datacenters with %d probers in all; start it with the same numbers, or choose another --data", cfg.Data, len(m.Servers), len(m.Probers))
		}
		return &m, nil
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, "etcd")); err == nil {
		return nil, fmt.Errorf("%s holds a mesh of one process; choose another --data for one of several", cfg.Data)
	}
	cfg = cfg.WithDefaults()
	m := &localMesh{}
	for i := range datacenters {
		dc := string(rune('a' + i))
		s := localServer{Name: dc, Datacenter: dc}
		for _, p := range []struct {
			to   *string
			base string
		}{{&s.GRPC, cfg.GRPCListen}, {&s.HTTP, cfg.HTTPListen}, {&s.Peer, "127.0.0.1:0"}} {
			address, err := nthAddress(p.base, i)
			if err != nil {
				return nil, err
			}
			*p.to = address
		}
		m.Servers = append(m.Servers, s)
		for n := range probers {
			m.Probers = append(m.Probers, localProber{Name: fmt.Sprintf("%s-%d", dc, n+1), Datacenter: dc})
		}
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	return m, os.WriteFile(path, append(b, '\n'), 0o600)
}

// nthAddress is the address of the nth server: its ports lie two apart; port 0 takes a free one.
func nthAddress(base string, n int) (string, error) {
	host, port, err := net.SplitHostPort(base)
	if err != nil {
		return "", err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return "", fmt.Errorf("%q: the port must be a number for a mesh of several servers", base)
	}
	if number != 0 {
		number += 2 * n
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(number)))
	if err != nil {
		return "", fmt.Errorf("%w; choose other ports with --grpc-listen and --http-listen (port 0 takes free ones)", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// upLocalMesh runs the processes of a local mesh until ctx ends, or all of them have ended. One that dies is not started again: killing them is what this is for.
func (a *app) upLocalMesh(ctx context.Context, cfg server.Config, datacenters, probers int) error {
	m, err := planLocalMesh(cfg, datacenters, probers)
	if err != nil {
		return usagef("%v", err)
	}
	_ = os.Remove(filepath.Join(cfg.Data, addressesFile))
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.env.Out, "probemesh %s is starting %d servers and %d probers on %s ...\n", version.Build(), len(m.Servers), len(m.Probers), cfg.Data)
	return watched(ctx, func(ctx context.Context) error {
		f := &fleet{a: a, self: self, data: cfg.Data, ended: make(chan ending, len(m.Servers)+len(m.Probers))}
		defer f.stop()
		var cluster, servers []string
		for _, s := range m.Servers {
			cluster, servers = append(cluster, s.Name+"=http://"+s.Peer), append(servers, s.GRPC)
		}
		for i := range m.Servers {
			s := &m.Servers[i]
			s.PID, err = f.start("server "+s.Name, "server-"+s.Name, "server", "--name", s.Name, "--datacenter", s.Datacenter, "--data", filepath.Join(cfg.Data, s.Datacenter, "server"),
				"--grpc-listen", s.GRPC, "--http-listen", s.HTTP, "--etcd-listen-peer", "http://"+s.Peer, "--etcd-initial-cluster", strings.Join(cluster, ","),
				"--lease-ttl", cfg.WithDefaults().LeaseTTL.String())
			if err != nil {
				return err
			}
		}
		for i := range m.Probers {
			p := &m.Probers[i]
			p.PID, err = f.start("prober "+p.Name, "prober-"+p.Name, "prober", "--name", p.Name, "--datacenter", p.Datacenter, "--data", filepath.Join(cfg.Data, p.Datacenter, "prober-"+p.Name),
				"--server", strings.Join(servers, ","))
			if err != nil {
				return err
			}
		}
		if err := f.await(ctx, m); err != nil {
			return err
		}
		if err := writeAddresses(cfg.Data, m.published()); err != nil {
			return fmt.Errorf("write down the addresses: %w", err)
		}
		a.meshBanner(cfg, m)
		return f.watch(ctx)
	})
}

// published is what addresses.json says: without what only the members need.
func (m *localMesh) published() *localMesh {
	p := &localMesh{Probers: m.Probers}
	for _, s := range m.Servers {
		s.Peer = ""
		p.Servers = append(p.Servers, s)
	}
	return p
}

// fleet is the processes of a local mesh. Each reads its standard input and stops when that ends, so none outlives this one, however it ends.
type fleet struct {
	a     *app
	self  string
	data  string
	ended chan ending

	members []*member
	waiting sync.WaitGroup
}

type member struct {
	what  string
	cmd   *exec.Cmd
	stdin io.Closer
	log   string
	args  []string
}

type ending struct {
	m   *member
	err error
}

// start starts one process, with its output in a file of its own.
func (f *fleet) start(what, logName string, args ...string) (pid int, err error) {
	path := filepath.Join(f.data, logName+".log")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.Command(f.self, append(args, "--"+stdinFlag)...)
	cmd.Stdout, cmd.Stderr = out, out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", what, err)
	}
	m := &member{what: what, cmd: cmd, stdin: stdin, log: path, args: args}
	f.members = append(f.members, m)
	f.waiting.Go(func() { f.ended <- ending{m, cmd.Wait()} })
	return cmd.Process.Pid, nil
}

// stop ends every process and waits for them.
func (f *fleet) stop() {
	for _, m := range f.members {
		m.stdin.Close()
	}
	f.waiting.Wait()
}

// await waits until every server is ready.
func (f *fleet) await(ctx context.Context, m *localMesh) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for _, s := range m.Servers {
		path := filepath.Join(f.data, s.Datacenter, "server", addressesFile)
		for {
			if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), s.GRPC) {
				break
			}
			select {
			case <-ctx.Done():
				return nil
			case e := <-f.ended:
				return fmt.Errorf("%s ended before the mesh was up (%w); its log is %s", e.m.what, e.err, e.m.log)
			case <-t.C:
			}
		}
	}
	return nil
}

// watch says which process has ended, until ctx ends or none is left.
func (f *fleet) watch(ctx context.Context) error {
	for left := len(f.members); left > 0; left-- {
		select {
		case <-ctx.Done():
			fmt.Fprintln(f.a.env.Out, "stopping; everything is kept in", f.data)
			return nil
		case e := <-f.ended:
			why := "it ended"
			if e.err != nil {
				why = e.err.Error()
			}
			fmt.Fprintf(f.a.env.Out, "%s  %s (pid %d): %s; the others go on. Start it again with:\n  %s %s\n", time.Now().Format(time.TimeOnly), e.m.what, e.m.cmd.Process.Pid, why,
				f.self, strings.Join(e.m.args, " "))
		}
	}
	return errors.New("every process of the mesh has ended")
}

// meshBanner says what runs where and what to do next.
func (a *app) meshBanner(cfg server.Config, m *localMesh) {
	out := a.env.Out
	fmt.Fprintf(out, "\nThe mesh is up: %d datacenters, each with a server and an etcd member, and %d probers.\n\n", len(m.Servers), len(m.Probers))
	var all []string
	for _, s := range m.Servers {
		fmt.Fprintf(out, "  server %-4s  pid %-7d  gRPC %s   status page http://%s/\n", s.Name, s.PID, s.GRPC, s.HTTP)
		all = append(all, s.GRPC)
	}
	for _, p := range m.Probers {
		fmt.Fprintf(out, "  prober %-4s  pid %-7d  in datacenter %s\n", p.Name, p.PID, p.Datacenter)
	}
	fmt.Fprintf(out, `
Logs and data are below %s. Kill any of them and see what happens. Next, from another terminal:

  export PROBEMESH_SERVER=%s
  probemesh get servers
  probemesh apply -f docs/examples/first.yaml
  probemesh get checks --watch

Ctrl-C stops it; nothing is lost.
`, cfg.Data, strings.Join(all, ","))
}

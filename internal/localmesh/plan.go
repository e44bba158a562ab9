package localmesh

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Limits of a local mesh: more does not fit on one machine in a way that shows anything.
const (
	// MaxDatacenters is the most datacenters, each with a server.
	MaxDatacenters = 5
	// MaxProbers is the most probers in one datacenter.
	MaxProbers = 10
)

const (
	planFile = "mesh.json"
	// AddressesFile is the name, below a data directory, of the file with the addresses at which its processes listen.
	AddressesFile = "addresses.json"
)

// Plan is who belongs to a mesh and where each listens: the content of addresses.json.
type Plan struct {
	Servers []Server `json:"servers"`
	Probers []Prober `json:"probers"`
	// Block is the first of the row of ports that the free ones were taken from; 0 when none were. Only in the plan, not in addresses.json.
	Block int `json:"block,omitempty"`
}

// Server is a server's place in a plan. Addresses are HOST:PORT.
type Server struct {
	Name       string `json:"name"`
	Datacenter string `json:"datacenter"`
	GRPC       string `json:"grpc"`
	HTTP       string `json:"http"`
	// Peer is where its etcd member talks to the others; only in the plan, not in addresses.json.
	Peer string `json:"peer,omitempty"`
	// EtcdClient is where its etcd member serves etcdctl; empty unless asked for by [Options.EtcdClients].
	EtcdClient string `json:"etcd_client,omitempty"`
	// PID is the number of its process when addresses.json was written.
	PID int `json:"pid,omitempty"`
}

// Prober is a prober's place in a plan.
type Prober struct {
	Name       string `json:"name"`
	Datacenter string `json:"datacenter"`
	PID        int    `json:"pid,omitempty"`
}

// Ports of servers that have a host of their own each, by [Options.Host].
const (
	grpcPort       = "7700"
	httpPort       = "7701"
	etcdPeerPort   = "2380"
	etcdClientPort = "2379"
)

// plan reads the plan of an earlier run, or makes one. The block of ports that it holds is nil when the plan has none, and when somebody else holds it by now.
func plan(o Options) (*Plan, *block, error) {
	path := filepath.Join(o.Data, planFile)
	if b, err := os.ReadFile(path); err == nil {
		var p Plan
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, nil, fmt.Errorf("%s is damaged (%w); choose another --data", path, err)
		}
		if len(p.Servers) != o.Datacenters || len(p.Probers) != o.Datacenters*o.Probers {
			return nil, nil, fmt.Errorf("%s holds a mesh of %d datacenters with %d probers in all; start it with the same numbers, or choose another --data", o.Data, len(p.Servers), len(p.Probers))
		}
		if p.Block == 0 {
			return &p, nil, nil
		}
		held, _ := holdBlock(p.Block) // whoever holds it may use other ports than ours; if it uses ours, awaitPorts says so
		return &p, held, nil
	}
	if _, err := os.Stat(filepath.Join(o.Data, "etcd")); err == nil {
		return nil, nil, fmt.Errorf("%s holds a mesh of one process; choose another --data for one of several", o.Data)
	}
	p, held, err := newPlan(o)
	if err == nil {
		var b []byte
		if b, err = json.MarshalIndent(p, "", "  "); err == nil {
			err = os.WriteFile(path, append(b, '\n'), 0o600)
		}
	}
	if err != nil {
		held.release()
		return nil, nil, err
	}
	return p, held, nil
}

// newPlan chooses names and addresses. The block is to be released also after an error.
func newPlan(o Options) (*Plan, *block, error) {
	var held *block
	taken := map[string]bool{} // from the block, so nobody listens there
	free := func() (address string, err error) {
		if held == nil {
			if held, err = claimBlock(); err != nil {
				return "", err
			}
		}
		address, err = held.take()
		taken[address] = true
		return address, err
	}
	p := &Plan{}
	for i := range o.Datacenters {
		s, err := o.place(i, free)
		if err != nil {
			return nil, held, err
		}
		p.Servers = append(p.Servers, s)
		for n := range o.Probers {
			p.Probers = append(p.Probers, Prober{Name: fmt.Sprintf("%s-%d", s.Datacenter, n+1), Datacenter: s.Datacenter})
		}
	}
	if held != nil {
		p.Block = held.first()
	}
	if err := p.distinct(); err != nil || o.Host != nil {
		return p, held, err
	}
	for _, s := range p.Servers {
		for _, address := range s.addresses() {
			if taken[address] {
				continue
			}
			if l, err := net.Listen("tcp", address); err != nil {
				return nil, held, fmt.Errorf("%w; choose other ports with --grpc-listen and --http-listen (port 0 takes free ones)", err)
			} else if err := l.Close(); err != nil {
				return nil, held, err
			}
		}
	}
	return p, held, nil
}

// addressesFrom are the gRPC addresses of all servers, those of a datacenter first: a prober tries its own server before the others.
func (p *Plan) addressesFrom(datacenter string) []string {
	var own, others []string
	for _, s := range p.Servers {
		if s.Datacenter == datacenter {
			own = append(own, s.GRPC)
		} else {
			others = append(others, s.GRPC)
		}
	}
	return append(own, others...)
}

// place chooses the addresses of the i-th server; free gives those that may be any.
func (o Options) place(i int, free func() (string, error)) (Server, error) {
	dc := Datacenter(i)
	s := Server{Name: dc, Datacenter: dc}
	if o.Host != nil {
		// Its address may be one of another network namespace, where this process cannot look for a free port; nothing else listens there.
		host := o.Host(dc)
		s.GRPC, s.HTTP, s.Peer = net.JoinHostPort(host, grpcPort), net.JoinHostPort(host, httpPort), net.JoinHostPort(host, etcdPeerPort)
		if o.EtcdClients {
			s.EtcdClient = net.JoinHostPort(host, etcdClientPort)
		}
		return s, nil
	}
	wanted := []struct {
		to   *string
		base string
	}{{&s.GRPC, o.GRPCListen}, {&s.HTTP, o.HTTPListen}, {&s.Peer, ""}}
	if o.EtcdClients {
		wanted = append(wanted, struct {
			to   *string
			base string
		}{&s.EtcdClient, ""})
	}
	for _, p := range wanted {
		address, err := nthAddress(p.base, i, free)
		if err != nil {
			return s, err
		}
		*p.to = address
	}
	return s, nil
}

// Datacenter is the name of the i-th datacenter, from 0: a, b, c, ...
func Datacenter(i int) string { return string(rune('a' + i)) }

// nthAddress is the address of the nth server: its ports lie two apart; port 0, or no base at all, takes a free one.
func nthAddress(base string, n int, free func() (string, error)) (string, error) {
	if base == "" {
		return free()
	}
	host, port, err := net.SplitHostPort(base)
	if err != nil {
		return "", err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return "", fmt.Errorf("%q: the port must be a number for a mesh of several servers", base)
	}
	switch {
	case number == 0 && host == "127.0.0.1":
		return free()
	case number == 0: // any port at a host of the user's
		l, err := net.Listen("tcp", base)
		if err != nil {
			return "", fmt.Errorf("%w; choose another host with --grpc-listen and --http-listen", err)
		}
		defer l.Close()
		return l.Addr().String(), nil
	}
	if number += 2 * n; number > 65535 {
		return "", fmt.Errorf("the ports of a mesh lie two apart, so server %s would need port %d; the highest is 65535, choose a lower one", Datacenter(n), number)
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}

package drill

import (
	"context"
	"net"
	"os/exec"

	"github.com/probemesh/probemesh/internal/drill/netns"
	"github.com/probemesh/probemesh/internal/localmesh"
)

// OwnNetworks requires that datacenters can have networks of their own. A scenario that has it is run in a process that [netns.Isolate] has started.
func OwnNetworks() Requirement {
	return Requirement{ownNetworks, func() error { return netns.Supported() }}
}

const ownNetworks = "Linux with /dev/net/tun, and root or user namespaces"

// OwnNetworks tells whether the scenario has that requirement.
func (s Scenario) OwnNetworks() bool {
	for _, q := range s.Requires {
		if q.Text == ownNetworks {
			return true
		}
	}
	return false
}

// StartMeshOnNetwork is StartMesh with that many datacenters and a network of its own for each. Its targets and receiver must be where it reaches them: see [Run.Outside], or
// inside of a datacenter.
func (r *Run) StartMeshOnNetwork(ctx context.Context, datacenters int, change func(*localmesh.Options)) (*Mesh, *netns.Network, error) {
	var names []string
	for i := range datacenters {
		names = append(names, localmesh.Datacenter(i))
	}
	n, err := netns.New(r.logger(), names...)
	if err != nil {
		return nil, nil, err
	}
	r.Cleanup(n.Close)
	m, err := r.StartMesh(ctx, func(o *localmesh.Options) {
		o.Datacenters, o.Host = datacenters, n.Host
		o.Launcher = func(x *localmesh.Member, cmd *exec.Cmd) error {
			return n.Wrap(x.Datacenter, cmd, []string{r.Program, netns.Command})
		}
		if change != nil {
			change(o)
		}
	})
	return m, n, err
}

// Outside makes the run's receiver reachable from every datacenter of a network, and gives its URL there.
func (r *Run) Outside(n *netns.Network) (receiverURL string, err error) {
	l, err := net.Listen("tcp", net.JoinHostPort(n.Outside(), "0"))
	if err != nil {
		return "", err
	}
	r.Receiver.Serve(l)
	return "http://" + l.Addr().String() + "/hook", nil
}

package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// All sites are in 10.77.0.0/16: site n, from 1, is 10.77.n.1, and this process 10.77.0.1. Nobody else is in these networks, so it collides with nothing.
const subnetHigh, subnetLow = 10, 77

// MaxSites is the most sites that a Network can have.
const MaxSites = 200

// mtu is the size of the packets on the wire, as on an Ethernet.
const mtu = 1500

// Network is sites and the wire between them. [New] makes one, Close ends it. Its methods may be called concurrently.
type Network struct {
	log   *slog.Logger
	sites []*site // the first is this process
	names map[string]*site
	done  chan struct{}
	tasks sync.WaitGroup
	close sync.Once
}

type site struct {
	name    string
	host    string
	ns      *os.File // nil for this process
	tun     *os.File
	in, out *line
	stray   atomic.Uint64
	broken  sync.Once // logs the first failure to write
}

// New makes the sites of these names, joined and sound. It must be called in a process that is isolated by [Isolate].
func New(log *slog.Logger, names ...string) (*Network, error) {
	if !Isolated() {
		return nil, errors.New("networks can be made in a process with a network of its own only: this is a bug in the caller")
	}
	if len(names) > MaxSites {
		return nil, fmt.Errorf("%d sites: choose at most %d", len(names), MaxSites)
	}
	n := &Network{log: log, names: map[string]*site{}, done: make(chan struct{})}
	for i, name := range append([]string{""}, names...) {
		s := &site{name: name, host: fmt.Sprintf("%d.%d.%d.1", subnetHigh, subnetLow, i), in: newLine(uint64(2 * i)), out: newLine(uint64(2*i + 1))}
		if err := s.open(); err != nil {
			n.Close()
			return nil, err
		}
		n.sites = append(n.sites, s)
		if i > 0 {
			n.names[name] = s
		}
	}
	for _, s := range n.sites {
		n.tasks.Go(func() { n.carry(s) })
		n.tasks.Go(func() { s.in.run(n.done) })
		n.tasks.Go(func() { s.out.run(n.done) })
	}
	return n, nil
}

// open makes the site's namespace and its interface.
func (s *site) open() error {
	if s.name == "" {
		return s.attach()
	}
	return onThread(false, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network for %s: %w", s.name, err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return fmt.Errorf("keep the network of %s: %w", s.name, err)
		}
		s.ns = f
		return s.attach()
	})
}

// attach makes the interface in the namespace of this thread.
func (s *site) attach() error {
	if err := up("lo"); err != nil {
		return fmt.Errorf("bring up the loopback interface: %w", err)
	}
	tun, err := openTUN("wire")
	if err != nil {
		return err
	}
	s.tun = tun
	if err := configure("wire", s.host); err != nil {
		return fmt.Errorf("give the interface of %q the address %s: %w", s.name, s.host, err)
	}
	return nil
}

// carry takes the packets that leave a site and sends them on, until the interface is closed.
func (n *Network) carry(s *site) {
	buf := make([]byte, 65536)
	for {
		k, err := s.tun.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
				n.log.Error("wire ended", "datacenter", s.name, "err", err)
			}
			return
		}
		to := n.target(buf[:k])
		if to == nil {
			s.stray.Add(1)
			continue
		}
		data := append([]byte(nil), buf[:k]...)
		s.out.send(data, func(data []byte) {
			to.in.send(data, func(data []byte) { n.deliver(to, data) })
		})
	}
}

// target is the site that an IPv4 packet is for, by its destination address (RFC 791, bytes 16 to 19); nil when there is none.
func (n *Network) target(p []byte) *site {
	if len(p) < 20 || p[0]>>4 != 4 || p[16] != subnetHigh || p[17] != subnetLow || p[19] != 1 || int(p[18]) >= len(n.sites) {
		return nil
	}
	return n.sites[p[18]]
}

func (n *Network) deliver(to *site, data []byte) {
	if _, err := to.tun.Write(data); err != nil && !errors.Is(err, os.ErrClosed) {
		to.in.overflow.Add(1)
		to.broken.Do(func() { n.log.Warn("packet not delivered", "datacenter", to.name, "err", err) })
	}
}

// Host is the address of a site. It panics when there is no such site, as all methods do: the caller has mistaken it.
func (n *Network) Host(name string) string { return n.site(name).host }

// Outside is the address of this process, which every site reaches that is not cut off.
func (n *Network) Outside() string { return n.sites[0].host }

func (n *Network) site(name string) *site {
	s := n.names[name]
	if s == nil {
		panic(fmt.Sprintf("netns: there is no site %q", name))
	}
	return s
}

// Set makes f the fault of a site's connection from now on; the zero Fault mends it.
func (n *Network) Set(name string, f Fault) error {
	if err := f.Validate(); err != nil {
		return err
	}
	s := n.site(name)
	s.in.path.Store(&f.In)
	s.out.path.Store(&f.Out)
	return nil
}

// Stats counts the packets of a site until now.
func (n *Network) Stats(name string) Stats {
	s := n.site(name)
	return Stats{In: s.in.carried.Load(), Out: s.out.carried.Load(), CutIn: s.in.lost.Load(), CutOut: s.out.lost.Load(),
		Overflow: s.in.overflow.Load() + s.out.overflow.Load(), Stray: s.stray.Load()}
}

// Wrap rewrites cmd, which is not started yet, so that it runs inside a site. launcher is the program with its first arguments that runs [Exec], for example
// the probemesh binary and [Command]; `--fd N --` and cmd's own program and arguments are appended.
func (n *Network) Wrap(name string, cmd *exec.Cmd, launcher []string) error {
	s := n.site(name)
	if cmd.Err != nil {
		return cmd.Err
	}
	if len(launcher) == 0 || cmd.Process != nil {
		return errors.New("a command that is not started yet can be moved into a network, by a launcher: this is a bug in the caller")
	}
	program, err := exec.LookPath(launcher[0])
	if err != nil {
		return err
	}
	fd := 3 + len(cmd.ExtraFiles)
	cmd.ExtraFiles = append(cmd.ExtraFiles, s.ns)
	args := append(append([]string{}, launcher...), "--fd", strconv.Itoa(fd), "--", cmd.Path)
	cmd.Args, cmd.Path = append(args, cmd.Args[1:]...), program
	return nil
}

// Listen listens inside a site, at an address of IPv4 with a port; the listener is used and closed as any other.
func (n *Network) Listen(name, network, address string) (l net.Listener, err error) {
	err = n.inside(name, func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// Dial connects from inside a site to an address of IPv4 with a port.
func (n *Network) Dial(ctx context.Context, name, network, address string) (c net.Conn, err error) {
	err = n.inside(name, func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// inside runs f on a thread that is inside a site.
func (n *Network) inside(name string, f func() error) error {
	s := n.site(name)
	return onThread(false, func() error {
		if err := unix.Setns(int(s.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network of %s: %w", name, err)
		}
		return f()
	})
}

// Close takes the wire away and waits until its goroutines have ended. Processes inside a site keep its network, without connection. It may be called twice.
func (n *Network) Close() {
	n.close.Do(func() { close(n.done) })
	for _, s := range n.sites {
		if s.tun != nil {
			s.tun.Close()
		}
		if s.ns != nil {
			s.ns.Close()
		}
	}
	n.tasks.Wait()
}

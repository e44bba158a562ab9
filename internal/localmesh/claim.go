package localmesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

const lockFile = "mesh.lock"

// lockPatience is how long a lock may be held before that is another mesh's: a process that its holder starts at the very moment of its end holds it too, until
// it has become another program.
const lockPatience = time.Second

// claim makes the data directory and takes it for this process, whose end gives it back. It is done before anything in there is touched: a second mesh on the
// same data would make the first one's addresses disappear.
func claim(dir string) (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%w; choose a directory that can be written with --data", err)
	}
	var lock *fileutil.LockedFile
	var err error
	for limit := time.Now().Add(lockPatience); ; time.Sleep(20 * time.Millisecond) {
		lock, err = fileutil.TryLockFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
		if !errors.Is(err, fileutil.ErrLocked) || time.Now().After(limit) {
			break
		}
	}
	switch {
	case errors.Is(err, fileutil.ErrLocked):
		return nil, fmt.Errorf("a mesh is running on %s already; stop it first, or choose another directory with --data", dir)
	case err != nil:
		return nil, fmt.Errorf("%w; choose a directory that can be written with --data", err)
	}
	return lock, nil
}

// portsPatience is how long ports may be taken before that is an error: the members of a mesh that was killed a moment ago need some seconds to end.
const portsPatience = 8 * time.Second

// awaitPorts waits until nothing listens at the addresses of the servers. With hosts of their own, which may be in other network namespaces, it does not look.
func (m *Mesh) awaitPorts(ctx context.Context) error {
	if m.options.Host != nil {
		return nil
	}
	limit := time.Now().Add(portsPatience)
	for {
		err := m.portsFree()
		if err == nil || time.Now().After(limit) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (m *Mesh) portsFree() error {
	for _, s := range m.plan.Servers {
		for _, address := range s.addresses() {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("server %s is to listen on %s, as it did before: %w; stop what listens there, or choose another directory with --data, and other ports", s.Name, address, err)
			}
			_ = l.Close()
		}
	}
	return nil
}

// addresses are all at which the server listens.
func (s Server) addresses() []string {
	all := []string{s.GRPC, s.HTTP, s.Peer}
	if s.EtcdClient != "" {
		all = append(all, s.EtcdClient)
	}
	return all
}

// distinct refuses a plan in which two listen at one address.
func (p *Plan) distinct() error {
	user := map[string]string{}
	for _, s := range p.Servers {
		for _, address := range s.addresses() {
			if other, taken := user[address]; taken {
				both := "servers " + other + " and " + s.Name + " would both"
				if other == s.Name {
					both = "server " + s.Name + " would twice"
				}
				return fmt.Errorf("%s listen on %s: the ports of a mesh lie two apart, so choose --grpc-listen and --http-listen next to each other, "+
					"for example 127.0.0.1:7700 and 127.0.0.1:7701", both, address)
			}
			user[address] = s.Name
		}
	}
	return nil
}

// lastWords is what a member wrote about its end: from the last line of its log that begins with "error:", at most 1,000 bytes; empty when there is none.
func (x *Member) lastWords() string {
	b, err := os.ReadFile(x.Log)
	if err != nil {
		return ""
	}
	text := string(b[min(x.begun, int64(len(b))):])
	at := strings.LastIndex("\n"+text, "\nerror: ")
	if at < 0 {
		return ""
	}
	said := strings.TrimSpace(strings.TrimPrefix(text[at:], "error: "))
	return said[:min(len(said), 1000)]
}

package drill

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"

	"github.com/probemesh/probemesh/internal/drill/hang"
	"github.com/probemesh/probemesh/internal/localmesh"
)

// Disks are the disks of the servers of a mesh, each of which can be made to hang or to fail: see package hang. They may be used concurrently.
type Disks struct {
	mu sync.Mutex // guards of
	of map[*localmesh.Member]*hang.Disk
}

// HeldFlushes requires that the flushes of a process can be held.
func HeldFlushes() Requirement {
	return Requirement{"Linux on amd64 or arm64, with seccomp", func() error { return hang.Supported() }}
}

// StartMeshOnDisks is StartMesh with disks of its servers that can hang. At the end of the run all are released before the mesh is stopped.
// With writes, writes to a held file hang too, not only flushes.
func (r *Run) StartMeshOnDisks(ctx context.Context, writes bool, change func(*localmesh.Options)) (*Mesh, *Disks, error) {
	d := &Disks{of: map[*localmesh.Member]*hang.Disk{}}
	// A server whose supervisor has gone cannot flush any more, and dies of it: the supervisors end last.
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	var supervisors sync.WaitGroup
	r.Cleanup(func() { end(); supervisors.Wait() })
	m, err := r.StartMesh(ctx, func(o *localmesh.Options) {
		if change != nil {
			change(o)
		}
		inner := o.Launcher
		o.Launcher = func(x *localmesh.Member, cmd *exec.Cmd) error {
			if inner != nil {
				if err := inner(x, cmd); err != nil {
					return err
				}
			}
			if x.Kind != localmesh.KindServer {
				return nil
			}
			disk, err := hang.New(r.logger())
			if err != nil {
				return err
			}
			if writes {
				disk.HoldWrites()
			}
			if err := disk.Wrap(cmd, []string{r.Program, hang.Command}); err != nil {
				disk.Close()
				return err
			}
			supervisors.Go(func() {
				if err := disk.Run(running); err != nil && running.Err() == nil {
					r.Remark("the disk of %s is supervised no more: %v", x, err)
				}
			})
			d.mu.Lock()
			d.of[x] = disk
			d.mu.Unlock()
			return nil
		}
	})
	if err != nil {
		return nil, nil, err
	}
	r.Cleanup(d.Release)
	return m, d, nil
}

// Of is the disk of a server, as of its last start. It panics when it is none of the mesh: the caller has mistaken it.
func (d *Disks) Of(x *localmesh.Member) *hang.Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	disk := d.of[x]
	if disk == nil {
		panic(fmt.Sprintf("drill: %s has no disk of its own", x))
	}
	return disk
}

// Release lets every disk work again.
func (d *Disks) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, disk := range d.of {
		disk.Release()
	}
}

// logger writes what the drill's own plumbing has to say as progress.
func (r *Run) logger() *slog.Logger { return slog.New(slog.NewTextHandler(progress{r}, nil)) }

type progress struct{ r *Run }

// Write says a line.
func (p progress) Write(b []byte) (int, error) {
	p.r.Say("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

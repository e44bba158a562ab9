package succession

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// pulseFile is the file that is written, in each directory that is watched.
const pulseFile = ".pulse"

// How often the disk is tried, by a leader and by the others.
const (
	tryLeading = 500 * time.Millisecond
	tryIdle    = 2 * time.Second
)

// disk watches for a disk that hangs: a goroutine for each directory writes one small file and syncs it, again and again. A write that fails at once is no stall:
// what uses the disk tells of that.
type disk struct {
	dirs  []string
	write func(dir string) error

	mu    sync.Mutex
	began map[string]time.Time // writes under way
}

func newDisk(dirs []string) *disk {
	return &disk{dirs: dirs, write: writePulse, began: map[string]time.Time{}}
}

// watch tries one directory until ctx ends. every is asked how long to wait for the next time.
func (d *disk) watch(ctx context.Context, dir string, every func() time.Duration) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		d.note(dir, time.Now())
		_ = d.write(dir)
		d.note(dir, time.Time{})
		t.Reset(every())
	}
}

func (d *disk) note(dir string, began time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if began.IsZero() {
		delete(d.began, dir)
		return
	}
	d.began[dir] = began
}

// stall is how long the oldest write under way has been taking, and where; 0 below a second, as most writes take a few milliseconds.
func (d *disk) stall(now time.Time) (longest time.Duration, dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, began := range d.began {
		if s := now.Sub(began); s >= time.Second && s > longest {
			longest, dir = s, at
		}
	}
	return longest, dir
}

// writePulse writes the file and waits until it is on the disk.
func writePulse(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, pulseFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(time.Now().UTC().Format(time.RFC3339Nano) + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

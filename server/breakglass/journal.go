package breakglass

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
)

// journalFile is where, under the data directory, a server keeps what it delivered of outages that are not joined yet: the protojson of one Outage a line.
const journalFile = "break-glass.jsonl"

// entry is an outage as this server knows it, with what it delivered.
type entry struct {
	outage *peerv1.Outage
	// joined: it is part of an incident that goes on. It is kept for the receivers that hear of the end by a break-glass message only.
	joined bool
}

// readJournal gives the outages of a former life. A file that is not there is none; lines that cannot be read are counted.
func readJournal(dir string) (outages []*peerv1.Outage, broken int, err error) {
	b, err := os.ReadFile(filepath.Join(dir, journalFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		o := &peerv1.Outage{}
		if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(lines.Bytes(), o) != nil || o.GetKey() == "" {
			broken++
			continue
		}
		outages = append(outages, o)
	}
	return outages, broken, lines.Err()
}

// writeJournal replaces the file, whole or not at all. Without outages it is taken away.
func writeJournal(dir string, outages []*peerv1.Outage) error {
	path := filepath.Join(dir, journalFile)
	if len(outages) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	var b bytes.Buffer
	for _, o := range outages {
		line, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(o)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	f, err := os.CreateTemp(dir, journalFile+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// delivered are the entries that the journal keeps: those about which something was delivered and that wait to be joined.
func delivered(entries map[string]*entry) (list []*peerv1.Outage) {
	for _, key := range sorted(entries) {
		if e := entries[key]; len(e.outage.GetDeliveries()) > 0 && !e.joined {
			list = append(list, proto.CloneOf(e.outage))
		}
	}
	return list
}

// patience is how long the end of a server waits for a disk that hangs.
const patience = 2 * time.Second

// keep begins to write down what was delivered whenever that changes, in a goroutine of its own: a disk may hang just when etcd is lost, because both are on it, and
// neither beats nor the mind, which take the mutex, may wait for it. end has the last of it written and waits for that, but not for a disk that hangs.
func (g *Glass) keep() (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		failing := false
		for last := false; !last; {
			select {
			case <-g.changed:
			case <-stop:
				last = true
				select {
				case <-g.changed:
				default:
					return
				}
			}
			failing = g.write(failing)
		}
	}()
	return func() {
		close(stop)
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
			g.log.Error("a disk hangs: what was delivered without etcd is not written down, and may be told again after a restart, with the same key")
		}
	}
}

// write puts the journal on the disk, and tells whether that failed. A disk that does not take it costs a repetition after a restart, with the same key.
func (g *Glass) write(failing bool) bool {
	g.mu.Lock()
	list := delivered(g.entries)
	g.mu.Unlock()
	err := g.save(g.cfg.Dir, list)
	if err != nil && !failing {
		g.log.Error("what was delivered without etcd cannot be written down", "err", err)
	}
	return err != nil
}

// signal sets a channel of one element, if it is not set.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

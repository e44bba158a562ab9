package drill

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/localmesh"
)

// Fault is how a target fails.
type Fault int

// The faults of a target.
const (
	// Refuse closes the port: connections are refused.
	Refuse Fault = iota
	// Hang accepts connections and requests, and never answers. Not for a TCP target.
	Hang
	// Status500 answers every request with status 500. Not for a TCP target.
	Status500
	// Unreachable does nothing to the target: the network between it and the probers is cut by the drill, from Break to Mend.
	Unreachable
)

// String is the fault as people read it.
func (f Fault) String() string {
	return [...]string{"refuses", "hangs", "answers 500", "is cut off"}[f]
}

// Outage is a time in which a target did not answer: the ground truth.
type Outage struct {
	// Check is the bare name of the check that watches the target.
	Check string
	Fault Fault
	// Down is just before it began. Up is just before it ended; zero while it has not.
	Down, Up time.Time
	// Bound is how long after Down the alert may come. 0: it need not be announced, for example because it is too short for that.
	// Negative: it must not be, for example because it was over before any server could know of it; an alert of it counts as false.
	Bound time.Duration
}

// Bounds of outages that are not due.
const (
	// Optional is the bound of an outage that need not be announced.
	Optional time.Duration = 0
	// Silent is the bound of an outage that must not be announced.
	Silent time.Duration = -1
)

// Target is a web server, or a TCP listener, in this process that fails when it is told to. It may be used concurrently.
type Target struct {
	// Check is the bare name of the check that watches it.
	Check string
	// URI is what to probe.
	URI string

	run     *Run
	address string
	tcp     bool
	open    func(network, address string) (net.Listener, error)

	mu     sync.Mutex // guards all below
	fault  Fault
	broken *Outage // nil while it answers
	mended chan struct{}
	server *http.Server
	done   chan struct{}
}

// newTarget starts a target at host (empty: 127.0.0.1). open listens there, nil as [net.Listen] does.
func (r *Run) newTarget(check, host string, tcp bool, open func(network, address string) (net.Listener, error)) (*Target, error) {
	if open == nil {
		open = net.Listen
	}
	address, err := localmesh.FreeAddress()
	if err != nil {
		return nil, err
	}
	if host != "" {
		_, port, _ := net.SplitHostPort(address)
		address = net.JoinHostPort(host, port)
	}
	t := &Target{Check: check, URI: "http://" + address + "/", run: r, address: address, tcp: tcp, open: open, mended: make(chan struct{})}
	if tcp {
		t.URI = "tcp://" + address
	}
	if err := t.listen(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.targets = append(r.targets, t)
	r.mu.Unlock()
	r.Cleanup(t.close)
	return t, nil
}

// listenAgain listens, by open, at an address of one's own that one has listened at before. The port may be another's for a moment, as one of an outgoing connection.
func listenAgain(open func(network, address string) (net.Listener, error), address string) (l net.Listener, err error) {
	err = Until(context.Background(), "listen at "+address, 5*time.Second, func() (bool, string) {
		var err error
		l, err = open("tcp", address)
		return err == nil, fmt.Sprint(err)
	})
	return l, err
}

func (t *Target) listen() error {
	l, err := listenAgain(t.open, t.address)
	if err != nil {
		return err
	}
	s, done := &http.Server{Handler: http.HandlerFunc(t.serve), ReadHeaderTimeout: time.Minute}, make(chan struct{})
	t.server, t.done = s, done
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	return nil
}

func (t *Target) serve(w http.ResponseWriter, req *http.Request) {
	t.mu.Lock()
	broken, fault, mended := t.broken != nil, t.fault, t.mended
	t.mu.Unlock()
	switch {
	case !broken:
		fmt.Fprintln(w, "fine")
	case fault == Status500:
		http.Error(w, "out of order", http.StatusInternalServerError)
	case fault == Hang:
		select {
		case <-req.Context().Done():
		case <-mended:
			panic(http.ErrAbortHandler) // who waited has waited for nothing
		}
	}
}

// Break makes it fail from now on. The alert is late when it comes more than bound after that; see [Optional] and [Silent] for other bounds. One that is broken already stays as it is, and its outage is given.
func (t *Target) Break(f Fault, bound time.Duration) *Outage {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return t.broken
	}
	if t.tcp && f != Unreachable {
		f = Refuse
	}
	o := &Outage{Check: t.Check, Fault: f, Down: time.Now(), Bound: bound}
	t.fault, t.broken = f, o
	if f == Refuse {
		_ = t.server.Close()
		<-t.done
	}
	t.run.mu.Lock()
	t.run.outages = append(t.run.outages, o)
	t.run.mu.Unlock()
	return o
}

// Mend makes it answer again. One that is not broken stays as it is. It fails when its port has become another's.
func (t *Target) Mend() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken == nil {
		return nil
	}
	up := time.Now()
	if t.fault == Refuse {
		if err := t.listen(); err != nil {
			return err
		}
	}
	t.run.mu.Lock()
	t.broken.Up = up
	t.run.mu.Unlock()
	t.broken = nil
	close(t.mended)
	t.mended = make(chan struct{})
	return nil
}

// Flip closes the port of a target that is [Unreachable], or opens it again: what happens to it where nobody can see it, which is no outage of its own. It does
// nothing to a target that is not.
func (t *Target) Flip(open bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.broken == nil || t.fault != Unreachable:
		return nil
	case open:
		return t.listen()
	}
	_ = t.server.Close()
	<-t.done
	return nil
}

// Broken is the outage that is going on, or nil.
func (t *Target) Broken() *Outage {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.broken
}

func (t *Target) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.server.Close()
	<-t.done
}

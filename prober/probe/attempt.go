package probe

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// phases is how many values the phase enum has.
const phases = int(meshv1.Result_EXPECT) + 1

// Attempt is the record of one probe while it runs: in which phase it is, how long the phases took, and whom it met. Its methods may be called
// by several goroutines at once, and after the probe has ended, when they do nothing.
type Attempt struct {
	mu        sync.Mutex
	start     time.Time
	timeout   time.Duration
	options   Options
	phase     meshv1.Result_Phase
	since     time.Time
	spent     [phases]time.Duration
	happened  [phases]bool
	ended     time.Time
	addresses []netip.Addr
	names     []string // see aliasOf
	remote    string
	host      string
	tls       *tls.ConnectionState
	certs     []*x509.Certificate
	verified  bool
	steps     []*meshv1.StepResult
	captures  map[string]string
}

// maxSteps is how many steps a result tells of. The last one is always among them, since it may be the one that failed.
const maxSteps = 32

// Step runs one of several steps of the probe and notes how it went. Its error, if any, is a [*Failure] whose sentence begins with the name of the step.
func (a *Attempt) Step(name string, run func() error) error {
	begin := time.Now()
	err := run()
	step := &meshv1.StepResult{Name: clip(name, 63), Duration: durationpb.New(time.Since(begin)), Outcome: meshv1.Result_OK}
	var failed *Failure
	if err != nil {
		f := *Classify(err, a)
		step.Outcome, step.Error = f.outcome(), clip(f.Sentence, maxSentence)
		f.Sentence = "step " + name + ": " + f.Sentence
		failed = &f
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() {
		a.steps = append(a.steps[:min(len(a.steps), maxSteps-1)], step)
	}
	if failed == nil {
		return nil
	}
	return failed
}

// Captured notes what the steps so far have captured, for the expectations. The map must not change afterwards while the probe runs.
func (a *Attempt) Captured(values map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() {
		a.captures = values
	}
}

// Options are the options that the probe was started with.
func (a *Attempt) Options() Options { return a.options }

// Start is when the probe began.
func (a *Attempt) Start() time.Time { return a.start }

// Timeout is how long the probe may take from its start.
func (a *Attempt) Timeout() time.Duration { return a.timeout }

// Aside is the record of something that is done besides the probe itself, such as fetching a token: it has the start, the timeout and the options of a, and phases of its own.
func (a *Attempt) Aside() *Attempt {
	return &Attempt{start: a.start, timeout: a.timeout, options: a.options}
}

// Enter ends the phase that the probe is in and begins another. Entering a phase again adds to its time.
func (a *Attempt) Enter(p meshv1.Result_Phase) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() {
		a.leave(now)
		a.phase, a.since = p, now
		a.happened[p] = true
	}
}

// Restart begins the clock of phase p again if the probe is in it: what went before is not counted.
func (a *Attempt) Restart(p meshv1.Result_Phase) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() && a.phase == p {
		a.since = now
	}
}

// leave adds the time since the last change to the phase that ends.
func (a *Attempt) leave(now time.Time) {
	if a.phase != meshv1.Result_PHASE_UNSPECIFIED {
		a.spent[a.phase] += now.Sub(a.since)
	}
}

// Done stops all clocks: the answer is there, and what is still done does not count into its time. What comes later is ignored.
func (a *Attempt) Done() { a.end() }

// end stops all clocks, unless they were stopped before; what comes later is ignored.
func (a *Attempt) end() {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ended.IsZero() {
		return
	}
	a.leave(now)
	a.ended = now
}

// Phase is the phase that the probe is in, or was in when it ended.
func (a *Attempt) Phase() meshv1.Result_Phase {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.phase
}

// Resolved notes the addresses that the target's name has.
func (a *Attempt) Resolved(addrs []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() {
		a.addresses = addrs
	}
}

// aliasOf notes what a host that is visited is an alias of. The list is not changed.
func (a *Attempt) aliasOf(names []string) {
	if len(names) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ended.IsZero() {
		return
	}
	if len(a.names) == 0 {
		a.names = names
		return
	}
	for _, n := range names {
		if !slices.Contains(a.names, n) && len(a.names) < maxAliasesAll {
			a.names = append(slices.Clip(a.names), n)
		}
	}
}

// Meeting notes the host whose turn it is and clears what is known of the one before.
func (a *Attempt) Meeting(host string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() {
		a.host, a.tls, a.certs, a.verified = host, nil, nil, false
	}
}

// Connecting notes the address that the probe reaches for, or has reached, for example "192.0.2.7:443".
func (a *Attempt) Connecting(remote string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() {
		a.remote = remote
	}
}

// Remote is the address last given to Connecting.
func (a *Attempt) Remote() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.remote
}

// Host is the host last given to Meeting.
func (a *Attempt) Host() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.host
}

// Secured notes a completed handshake. verify tells whether the chain was verified.
func (a *Attempt) Secured(state *tls.ConnectionState, verify bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() {
		a.tls, a.certs, a.verified = state, state.PeerCertificates, verify
	}
}

// Rejected notes the chain of a peer whose handshake failed.
func (a *Attempt) Rejected(certs []*x509.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() {
		a.certs = certs
	}
}

// timings are the phases that happened; only after end.
func (a *Attempt) timings() *meshv1.Timings {
	return &meshv1.Timings{
		Resolve:    a.took(meshv1.Result_RESOLVE),
		Connect:    a.took(meshv1.Result_CONNECT),
		Handshake:  a.took(meshv1.Result_HANDSHAKE),
		Processing: a.took(meshv1.Result_PROCESSING),
		Transfer:   a.took(meshv1.Result_TRANSFER),
	}
}

// took is how long a phase took, nil when it did not happen.
func (a *Attempt) took(p meshv1.Result_Phase) *durationpb.Duration {
	if !a.happened[p] {
		return nil
	}
	return durationpb.New(a.spent[p])
}

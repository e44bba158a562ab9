package peer

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/probemesh/probemesh/internal/fault"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// backoffMin and backoffMax bound the ceiling of the time between attempts, which is chosen anew below it each time. The first attempt after a break comes at once.
	backoffMin = 100 * time.Millisecond
	backoffMax = 2 * time.Second
	// backoffSoon is the ceiling of the first wait: a process that is being killed may still take a connection for a moment, and then refuses the next one.
	backoffSoon = 20 * time.Millisecond
	// attemptTimeout is how long an attempt may take until the other server has answered: beyond it, a SYN was lost and a new one finds a server sooner than TCP's
	// own repetition, which doubles its wait.
	attemptTimeout = 2 * time.Second
	// askQueue is how many runs wait to be sent to one server at most.
	askQueue = 1024
	// acknowledgeEvery is how often a follower says how far it is, as its sign of life.
	acknowledgeEvery = time.Second
)

// follow keeps a stream to a server until ctx ends.
func (p *Peers) follow(ctx context.Context, o *other, in *intake) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(p.cfg.BootID + o.name)) // never fails
	random := rand.New(rand.NewPCG(h.Sum64(), 0))
	ceiling := time.Duration(0)
	complained := ""
	for ctx.Err() == nil {
		began, err := p.attempt(ctx, o, in)
		if ctx.Err() != nil {
			return
		}
		if why := reasonOf(err); began || why != complained {
			complained = why
			p.log.Warn("stream to a server ended; trying again", "server", o.name, "refused", refused(err), "err", err)
		}
		p.m.broke(refused(err))
		if began {
			ceiling, complained = 0, ""
		}
		timer := time.NewTimer(time.Duration(float64(ceiling) * random.Float64()))
		switch ceiling {
		case 0:
			ceiling = backoffSoon
		case backoffSoon:
			ceiling = backoffMin
		default:
			ceiling = min(2*ceiling, backoffMax)
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-o.kick:
			ceiling = backoffMin
		}
		timer.Stop()
	}
}

// reasonOf is an error as far as it matters for not repeating oneself.
func reasonOf(err error) string {
	if f, ok := fault.From(err); ok && f.Reason != meshv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return f.Reason.String()
	}
	return status.Code(err).String()
}

// refused tells whether an error says that nothing listens at the address. gRPC keeps only the text of the system's error; that of ECONNREFUSED has this word on
// every system.
func refused(err error) bool { return err != nil && strings.Contains(err.Error(), "refused") }

// attempt opens a stream and reads it until it ends. It tells whether it had begun.
func (p *Peers) attempt(ctx context.Context, o *other, in *intake) (began bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.mu.Lock()
	address := o.address
	start := &peerv1.Start{Server: p.name, BootId: p.cfg.BootID, Protocol: Protocol, Journal: o.journal, Position: o.position}
	in.clear()
	p.mu.Unlock()
	asks := make(chan *peerv1.Run, askQueue)
	defer func() {
		err = ending(ctx, err)
		p.broke(o, asks, err)
	}()

	conn, err := p.deps.Dial(address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	late := time.AfterFunc(attemptTimeout, func() { cancel(errLate) })
	defer late.Stop()
	stream, err := peerv1.NewPeerServiceClient(conn).Follow(ctx)
	if err != nil {
		return false, err
	}
	if err := stream.Send(&peerv1.FollowRequest{Message: &peerv1.FollowRequest_Start{Start: start}}); err != nil {
		_, err = stream.Recv() // what Send cannot say
		return false, err
	}
	m, err := stream.Recv()
	if err != nil {
		return false, err
	}
	late.Stop()
	if err := p.begin(o, m.GetStarted(), asks, func() { cancel(errSilent) }); err != nil {
		return false, err
	}
	p.log.Info("following a server", "server", o.name, "boot_id", m.GetStarted().GetBootId())
	var sending sync.WaitGroup
	sending.Go(func() { p.speak(ctx, o, in, stream, asks) })
	err = p.listen(o, in, stream, asks)
	cancel(nil)
	sending.Wait()
	return true, err
}

var (
	errLate   = errors.New("no answer within " + attemptTimeout.String())
	errSilent = errors.New("nothing was heard for too long, or it has moved")
)

// begin checks what a server says of itself, and makes the stream its stream.
func (p *Peers) begin(o *other, s *peerv1.Started, asks chan *peerv1.Run, renew context.CancelFunc) error {
	switch {
	case s == nil:
		return broken("the first message is not Started")
	case s.GetServer() != o.name:
		return broken("%s answers at the address of %s; give each server its own --grpc-advertise", s.GetServer(), o.name)
	case s.GetProtocol() != Protocol:
		return broken("%s speaks protocol %d and this server speaks %d; upgrade the older one", o.name, s.GetProtocol(), Protocol)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.journal != s.GetJournal() {
		o.journal, o.position = s.GetJournal(), 0
	}
	o.asks, o.renew, o.refused = asks, renew, false
	o.boot, o.datacenter = s.GetBootId(), s.GetDatacenter()
	o.heard, o.skew = time.Now(), skew{}
	o.missed, o.silent = false, false
	p.learnLocked(s.GetServer(), s.GetRemembered(), time.Now())
	p.changedLocked()
	return nil
}

// broke notes the end of an attempt, and tells whoever asked for runs that were not sent.
func (p *Peers) broke(o *other, asks chan *peerv1.Run, err error) {
	p.mu.Lock()
	changed := o.asks == asks || o.refused != refused(err)
	if o.asks == asks {
		o.asks, o.renew = nil, nil
	}
	o.refused = refused(err)
	if changed {
		p.changedLocked()
	}
	p.mu.Unlock()
	if changed {
		p.Beat()
	}
	for {
		select {
		case r := <-asks:
			p.mesh.PeerRefusal(r.GetProber(), r.GetRun().GetRunId(), "the stream to "+o.name+" broke before the run was sent")
		default:
			return
		}
	}
}

// listen reads a stream until it ends. It never waits for anything else, so that a beat is heard when it comes.
func (p *Peers) listen(o *other, in *intake, stream grpc.BidiStreamingClient[peerv1.FollowRequest, peerv1.FollowResponse], asks chan *peerv1.Run) error {
	var snapshot []*peerv1.Presence
	whole := false // a snapshot has come
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		// History may be all that still moves in a server whose mind hangs.
		if m.GetHistory() == nil && !p.hear(o, asks, m.GetBeat()) {
			return errSilent
		}
		switch x := m.GetMessage().(type) {
		case *peerv1.FollowResponse_Beat:
			p.m.beats.Add(context.Background(), 1)
		case *peerv1.FollowResponse_Presences:
			ps := x.Presences
			switch {
			case ps.GetFirst():
				snapshot, whole = ps.GetPresences(), false
			case !whole:
				snapshot = append(snapshot, ps.GetPresences()...)
			default:
				p.mesh.PeerPresences(o.name, false, ps.GetPresences())
			}
			if !whole && ps.GetLast() {
				p.mesh.PeerPresences(o.name, true, snapshot)
				snapshot, whole = nil, true
			}
		case *peerv1.FollowResponse_Votes:
			p.m.heard(len(x.Votes.GetResults()))
			onThisClock(x.Votes.GetResults(), p.ahead(o))
			p.mesh.PeerVotes(o.name, x.Votes.GetResults())
		case *peerv1.FollowResponse_History:
			if !in.put(x.History) {
				return broken("%s sent more history than this server has room for", o.name)
			}
		case *peerv1.FollowResponse_Refusal:
			p.mesh.PeerRefusal(x.Refusal.GetProber(), x.Refusal.GetRunId(), x.Refusal.GetReason())
		}
	}
}

// speak sends runs and acknowledgements until ctx ends.
func (p *Peers) speak(ctx context.Context, o *other, in *intake, stream grpc.BidiStreamingClient[peerv1.FollowRequest, peerv1.FollowResponse], asks chan *peerv1.Run) {
	tick := time.NewTicker(acknowledgeEvery)
	defer tick.Stop()
	for {
		var m *peerv1.FollowRequest
		select {
		case <-ctx.Done():
			return
		case r := <-asks:
			m = &peerv1.FollowRequest{Message: &peerv1.FollowRequest_Run{Run: r}}
		case <-in.settled:
			m = p.acknowledgement(o)
		case <-tick.C:
			m = p.acknowledgement(o)
		}
		if err := stream.Send(m); err != nil {
			return // Recv says why
		}
	}
}

func (p *Peers) acknowledgement(o *other) *peerv1.FollowRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &peerv1.FollowRequest{Message: &peerv1.FollowRequest_Acknowledgement{Acknowledgement: &peerv1.Acknowledgement{Position: o.position}}}
}

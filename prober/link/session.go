package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/prober/assignments"
	"github.com/probemesh/probemesh/prober/clock"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	pingEvery  = time.Second
	silenceMax = 3 * time.Second
	attachMax  = 5 * time.Second         // from dialling to Welcome
	stopMax    = 1500 * time.Millisecond // for the last results, Goodbye and the server's answer
	updatesMax = 16                      // updates that wait to be applied
	itemsMax   = 1_000_000               // assignments in one update
	messageMin = 4 << 10                 // a smaller limit in Welcome is not believed
	// messageDefault is the limit of a server that states none.
	messageDefault = 1 << 20
	pingsInMind    = 8
)

var (
	errSilent  = errors.New("the server was silent for 3 s")
	errAttach  = errors.New("the server did not answer within 5 s")
	errStopped = errors.New("the prober stops")
)

// session is one stream. It is used once.
type session struct {
	link     *Link
	address  string
	server   string // as Welcome names it; written before welcomed is closed
	out      *outbox
	updates  chan *assignments.Update
	busy     atomic.Int32 // updates that have come and are not applied
	end      context.CancelCauseFunc
	silence  *time.Timer
	hello    *meshv1.Hello
	asked    asked
	beside   bool          // there was a session when this one began; written before run
	began    time.Time     // when Welcome came; written before welcomed is closed
	limit    int           // bytes of a message that the server takes; written before welcomed is closed
	retired  atomic.Bool   // another session has taken its place
	welcomed chan struct{} // closed when Welcome has come

	mu       sync.Mutex // guards everything below
	backlog  *backlog   // nil before Welcome
	extended uint64     // a result that found its queue full before Welcome
	pings    [pingsInMind]sentPing
	pingID   uint64
}

type sentPing struct {
	id   uint64
	sent time.Time
}

func newSession(l *Link, address string) *session {
	return &session{link: l, address: address, out: newOutbox(), updates: make(chan *assignments.Update, updatesMax), welcomed: make(chan struct{})}
}

// extend hands a result to the backlog.
func (s *session) extend(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.backlog == nil {
		s.extended = max(s.extended, sequence)
		return
	}
	s.backlog.extend(sequence)
	s.out.nudge()
}

// run has the session until it ends, and says why. When stop ends it says Goodbye first.
func (s *session) run(stop context.Context, client meshv1.SessionServiceClient) error {
	ctx, end := context.WithCancelCause(context.WithoutCancel(stop))
	defer end(nil)
	s.end = end // before welcomed is closed, and so before anybody else calls it
	s.silence = time.AfterFunc(attachMax, func() { end(errAttach) })
	defer s.silence.Stop()
	early := context.AfterFunc(stop, func() { end(errStopped) })
	defer early()

	stream, err := client.Session(ctx)
	if err != nil {
		return s.why(ctx, err)
	}
	welcome, err := s.greet(stream)
	if err != nil {
		return s.why(ctx, err)
	}
	if !early() {
		return errStopped
	}
	defer s.backlog.close()
	s.silence.Stop()
	s.silence = time.AfterFunc(silenceMax, func() { end(errSilent) })
	s.link.log.Info("session began", "server", welcome.GetServer(), "address", s.address)

	var group sync.WaitGroup
	group.Go(func() { s.apply(ctx) })
	group.Go(func() {
		if err := s.send(ctx, stop, stream); err != nil {
			end(err)
		}
	})
	err = s.receive(stream)
	err = s.why(ctx, err)
	end(err)
	s.silence.Stop()
	group.Wait()
	return err
}

// why prefers the reason for which we ended the session to what gRPC makes of it.
func (s *session) why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) || err == nil {
		return errors.New("the server ended the session")
	}
	return err
}

// greet says Hello and takes Welcome in.
func (s *session) greet(stream meshv1.SessionService_SessionClient) (*meshv1.Welcome, error) {
	l := s.link
	held := l.agent.Holding()
	first, last := l.spool.Range()
	sent := l.clock.Local()
	s.hello = &meshv1.Hello{
		Prober: l.cfg.Prober, BootId: l.cfg.Boot, Build: l.cfg.Build, Protocol: l.cfg.Protocol, Datacenter: l.cfg.Datacenter, Labels: l.cfg.Labels,
		Capabilities: l.cfg.Capabilities, Revision: held.GetRevision(), Digest: held.GetDigest(), Time: timestamppb.New(sent),
		LastSequence: last, FirstSequence: first, Machine: l.cfg.Machine,
	}
	if err := stream.Send(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Hello{Hello: s.hello}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	m, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	w := m.GetWelcome()
	if w == nil {
		return nil, fmt.Errorf("the server's first message is %T and not Welcome", m.GetMessage())
	}
	s.began, s.limit, s.server = time.Now(), limitOf(w), w.GetServer()
	l.clock.Forget()
	if w.GetTime().CheckValid() == nil {
		t := w.GetTime().AsTime()
		s.observe(clock.Sample{Sent: sent, Received: t, Answered: t, Returned: l.clock.Local()})
	}
	l.book.remember(w.GetServer(), s.address, w.GetAddresses(), w.GetServers())
	l.promote(s, w.GetServer())
	close(s.welcomed)
	l.keeper.nudge()
	if s.beside {
		// Until now results went to the session before as LIVE ones. This server has to get those as backlog, whatever the other one has taken.
		_, last = l.spool.Range()
	}
	s.out.open(l.agent.Newest(), min(frameBytes, s.limit)-frameRoom)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backlog = newBacklog(l.spool, l.clock, max(last, s.extended), int(w.GetResultWindow()))
	return w, nil
}

// limitOf is how large a message may be for a server.
func limitOf(w *meshv1.Welcome) int {
	if n := int(w.GetMessageLimit()); n >= messageMin {
		return n
	}
	return messageDefault
}

// observe takes a sample of the clock in, and logs a step.
func (s *session) observe(sample clock.Sample) {
	before := s.link.clock.Offset()
	offset, step := s.link.clock.Observe(sample)
	if step && (offset-before).Abs() >= time.Second {
		s.link.log.Warn("this machine's clock differs from the mesh's; timestamps and the timetable are corrected", "offset", offset, "before", before,
			"server", s.address)
	}
}

// apply applies updates one after the other.
func (s *session) apply(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-s.updates:
			if !s.retired.Load() {
				s.link.applying.Lock()
				ack := s.link.agent.Apply(u)
				s.link.applying.Unlock()
				s.sayAck(ack)
			}
			s.busy.Add(-1)
		}
	}
}

// sayAck says what is run, in as many messages as the refusals need.
func (s *session) sayAck(ack *meshv1.AssignmentAck) {
	for _, a := range pieces(ack, s.out.frameSize()) {
		s.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_AssignmentAck{AssignmentAck: a}})
	}
}

func (s *session) say(m *meshv1.ProberMessage) {
	if !s.out.say(m) {
		s.end(errors.New("the server does not read what it is sent"))
	}
}

// send sends by priority until ctx ends, or stop does and everything live is sent.
func (s *session) send(ctx, stop context.Context, stream meshv1.SessionService_SessionClient) error {
	nextPing := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	stopping := stop.Done()
	goodbye := false
	for {
		now := time.Now()
		m, wait := s.nextMessage(now, &nextPing, goodbye)
		if m == nil && goodbye {
			bye := &meshv1.ProberMessage{Message: &meshv1.ProberMessage_Goodbye{Goodbye: &meshv1.Goodbye{Reason: "the prober was told to stop"}}}
			return errors.Join(stream.Send(bye), stream.CloseSend())
		}
		if m != nil {
			if err := stream.Send(s.within(m)); err != nil {
				if errors.Is(err, io.EOF) {
					return nil // the reason comes to the receiver
				}
				return err
			}
			s.asked.answered(m)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-stopping:
			if s.retired.Load() {
				return errMoved // the other session says Goodbye
			}
			stopping, goodbye = nil, true
			s.out.flush()
			time.AfterFunc(stopMax, func() { s.end(errStopped) })
		case <-s.out.wake:
		case <-timer.C:
		}
	}
}

// nextMessage returns what to send now, or how long there is nothing.
func (s *session) nextMessage(now time.Time, nextPing *time.Time, goodbye bool) (*meshv1.ProberMessage, time.Duration) {
	if m := s.out.nextControl(s.link.clock.Local()); m != nil {
		return m, 0
	}
	if !now.Before(*nextPing) {
		*nextPing = now.Add(pingEvery)
		return s.ping(), 0
	}
	wait := nextPing.Sub(now)
	m, ripe := s.out.next(now)
	if m != nil || goodbye {
		return m, 0
	}
	if ripe > 0 {
		wait = min(wait, ripe)
	}
	if s.retired.Load() {
		return nil, wait
	}
	s.mu.Lock()
	b := s.backlog
	s.mu.Unlock()
	results, later := b.next(now, s.out.frame)
	if len(results) > 0 {
		return batch(meshv1.ResultBatch_BACKLOG, results), 0
	}
	if later > 0 {
		wait = min(wait, later)
	}
	return nil, wait
}

func (s *session) ping() *meshv1.ProberMessage {
	l := s.link
	st := l.spool.Stats()
	local := l.clock.Local()
	s.mu.Lock()
	s.pingID++
	id := s.pingID
	s.pings[id%pingsInMind] = sentPing{id: id, sent: local}
	s.mu.Unlock()
	var canaries []*meshv1.CanaryState
	if l.cfg.Canaries != nil {
		canaries = l.cfg.Canaries()
	}
	return &meshv1.ProberMessage{Message: &meshv1.ProberMessage_Ping{Ping: &meshv1.Ping{
		Id: id, OriginateTime: timestamppb.New(local), Spooled: st.Held, Dropped: st.Dropped,
		ClockOffset: durationpb.New(l.clock.Offset()), RoundTripTime: durationpb.New(l.clock.RoundTrip()),
		Canaries: canaries,
	}}}
}

// sentAt is when the ping was sent; false when it was never, or too long ago. Each is found once.
func (s *session) sentAt(id uint64) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pings[id%pingsInMind]
	if id == 0 || p.id != id {
		return time.Time{}, false
	}
	p.id = math.MaxUint64
	return p.sent, true
}

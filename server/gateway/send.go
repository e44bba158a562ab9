package gateway

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

type sender interface {
	Send(*meshv1.ServerMessage) error
}

// outgoing is what the sending goroutine keeps.
type outgoing struct {
	s      *session
	stream sender
	y      *syncer
	pings  uint64
	// ackedBefore is what was acknowledged when the digest went round last.
	ackedBefore uint64
	// places are the servers that the prober was told of last; changed is closed when there may be others.
	places  []*meshv1.ServerAddress
	changed <-chan struct{}
}

// send owns everything that is sent. Its order is by urgency: runs first; then whatever comes first. Welcome has told of the places, which may have changed since.
func (s *session) send(ctx context.Context, stream sender, places []*meshv1.ServerAddress, changed <-chan struct{}) error {
	o := &outgoing{s: s, stream: stream, y: newSyncer(s, stream), places: places, changed: changed}
	if err := o.y.begin(); err != nil {
		return err
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		// What is urgent overtakes: select alone chooses at random.
		select {
		case <-s.runs.some:
			if err := o.run(); err != nil {
				return err
			}
			continue
		default:
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.runs.some:
			err = o.run()
		case m := <-s.inbox:
			err = o.answer(ctx, m)
		case <-ping.C:
			err = o.tick()
		case <-s.ackable:
			err = o.acknowledge()
		case <-o.changed:
			err = o.servers()
		case <-s.woken:
			err = o.y.push(nil)
		case v := <-s.verified:
			err = o.y.answered(ctx, v)
		}
		if err != nil {
			return err
		}
	}
}

// servers tells of the servers, if they are others than the prober knows. That none is known is so only while the store is read anew.
func (o *outgoing) servers() error {
	places, changed := o.s.g.places.read()
	o.changed = changed
	if len(places) == 0 || same(o.places, places) {
		return nil
	}
	o.places = places
	return o.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Servers{Servers: &meshv1.Servers{Servers: places}}})
}

// run sends the runs that wait.
func (o *outgoing) run() error {
	for _, r := range o.s.runs.take() {
		if err := o.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_RunNow{RunNow: r}}); err != nil {
			return err
		}
	}
	return nil
}

func (o *outgoing) answer(ctx context.Context, m *meshv1.ProberMessage) error {
	switch x := m.GetMessage().(type) {
	case *meshv1.ProberMessage_Ping:
		now := timestamppb.Now()
		s := o.s
		s.mu.Lock()
		s.facts.ClockOffset, s.facts.RoundTrip = x.Ping.GetClockOffset().AsDuration(), x.Ping.GetRoundTripTime().AsDuration()
		s.facts.Spooled, s.facts.Dropped = x.Ping.GetSpooled(), x.Ping.GetDropped()
		s.facts.Canaries = canariesOf(x.Ping)
		s.mu.Unlock()
		return o.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Pong{Pong: &meshv1.Pong{
			Id: x.Ping.GetId(), OriginateTime: x.Ping.GetOriginateTime(), ReceiveTime: now, TransmitTime: timestamppb.Now(),
		}}})
	case *meshv1.ProberMessage_Inventory:
		return o.y.inventory(x.Inventory)
	case *meshv1.ProberMessage_AssignmentAck:
		return o.y.ack(ctx, x.AssignmentAck)
	}
	return nil
}

// tick pings. Every 30 s the digest goes with it, and numbers are asked for that should have come long ago.
func (o *outgoing) tick() error {
	var digest *uint64
	round := (o.pings+1)%uint64(digestEvery/pingEvery) == 0
	if round {
		var err error
		if digest, err = o.y.round(); err != nil {
			return err
		}
	}
	if err := o.ping(digest); err != nil {
		return err
	}
	acked := o.s.acked.Load()
	lost := round && o.s.gap.Load() && acked == o.ackedBefore
	if round {
		o.ackedBefore = acked
	}
	return o.catchUp(lost)
}

func (o *outgoing) ping(digest *uint64) error {
	o.pings++
	return o.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Ping{Ping: &meshv1.Ping{
		Id: o.pings, OriginateTime: timestamppb.Now(), ExpectedDigest: digest,
	}}})
}

// acknowledge sends how far the history is.
func (o *outgoing) acknowledge() error {
	ack := &meshv1.ResultAck{Sequence: o.s.acked.Load()}
	if err := o.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_ResultAck{ResultAck: ack}}); err != nil {
		return err
	}
	return o.catchUp(false)
}

// catchUp asks for what was left out, or never came, once the history has everything that was taken for it.
func (o *outgoing) catchUp(lost bool) error {
	s := o.s
	switch at := s.barrier.Load(); {
	case at != 0 && at != again, !s.waiting.idle():
		return nil
	case at == 0 && !s.behind.Load() && !lost:
		return nil
	}
	from := s.acked.Load() + 1
	s.g.log.Info("asking for results that are missing in the history", "prober", s.name, "from_sequence", from)
	s.g.m.resends.Add(context.Background(), 1)
	// From here on new results are taken again; BACKLOG when it has gone back.
	s.resendFrom.Store(from)
	s.barrier.Store(o.pings + 1)
	s.behind.Store(false)
	if err := o.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Resend{Resend: &meshv1.Resend{FromSequence: from}}}); err != nil {
		return err
	}
	return o.ping(nil)
}

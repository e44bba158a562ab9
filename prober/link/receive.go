package link

import (
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/prober/assignments"
	"github.com/probemesh/probemesh/prober/clock"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// receive takes messages in until the stream ends or the server breaks the contract. A message that this build does not know is ignored.
func (s *session) receive(stream meshv1.SessionService_SessionClient) error {
	update := &assignments.Update{}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		local := s.link.clock.Local()
		s.silence.Reset(silenceMax)
		if s.retired.Load() && !lingering(m) {
			continue
		}
		switch m := m.GetMessage().(type) {
		case *meshv1.ServerMessage_Ping:
			s.pong(m.Ping, local)
		case *meshv1.ServerMessage_Pong:
			s.measure(m.Pong, local)
		case *meshv1.ServerMessage_ResultAck:
			if err := s.link.spool.Ack(m.ResultAck.GetSequence()); err != nil {
				return err
			}
			s.backlog.acked(m.ResultAck.GetSequence())
			s.out.nudge()
		case *meshv1.ServerMessage_RunNow:
			s.asked.add(m.RunNow.GetRunId(), time.Now())
			s.link.agent.Run(m.RunNow)
		case *meshv1.ServerMessage_InventoryRequest:
			s.out.list(s.link.agent.Inventory())
		case *meshv1.ServerMessage_AssignmentUpdate:
			if update, err = s.collect(update, m.AssignmentUpdate); err != nil {
				return err
			}
		case *meshv1.ServerMessage_Resend:
			_, last := s.link.spool.Range()
			s.backlog.resend(m.Resend.GetFromSequence(), last)
			s.out.nudge()
		case *meshv1.ServerMessage_Redirect:
			s.redirect(m.Redirect)
		case *meshv1.ServerMessage_Servers:
			s.link.book.remember(s.server, s.address, nil, m.Servers.GetServers())
			s.link.keeper.nudge()
		case *meshv1.ServerMessage_Welcome:
			return errors.New("the server said Welcome twice")
		default:
			s.link.log.Debug("message of the server is not known to this build and ignored", "address", s.address)
		}
	}
}

// lingering tells whether a message matters to a session that another has replaced: what the prober runs, and when, is the other's business.
func lingering(m *meshv1.ServerMessage) bool {
	switch m := m.GetMessage().(type) {
	case *meshv1.ServerMessage_ResultAck, *meshv1.ServerMessage_RunNow:
		return true
	case *meshv1.ServerMessage_Ping:
		m.Ping.ExpectedDigest = nil
		return true
	}
	return false
}

// collect adds a message to the update, and gives it to the applier when it is complete.
func (s *session) collect(u *assignments.Update, m *meshv1.AssignmentUpdate) (*assignments.Update, error) {
	if !u.Add(m) {
		if len(u.Upserts)+len(u.Removals) > itemsMax {
			return nil, errors.New("the server's assignment update does not end")
		}
		return u, nil
	}
	s.busy.Add(1)
	select {
	case s.updates <- u:
		return &assignments.Update{}, nil
	default:
		return nil, errors.New("the server sends assignment updates faster than they can be applied")
	}
}

func (s *session) pong(p *meshv1.Ping, local time.Time) {
	s.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Pong{Pong: &meshv1.Pong{
		Id: p.GetId(), OriginateTime: p.GetOriginateTime(), ReceiveTime: timestamppb.New(local),
	}}})
	// While an update is being applied the digest is about to change, and will be acknowledged.
	if p.ExpectedDigest == nil || s.busy.Load() > 0 {
		return
	}
	if held := s.link.agent.Holding(); held.GetDigest() != p.GetExpectedDigest() {
		s.link.log.Info("assignments differ from what the server expects; it will ask for the inventory", "held", held.GetHeld(), "server", s.address)
		s.sayAck(held)
	}
}

func (s *session) measure(p *meshv1.Pong, local time.Time) {
	sent, ok := s.sentAt(p.GetId())
	if !ok || p.GetReceiveTime().CheckValid() != nil || p.GetTransmitTime().CheckValid() != nil {
		return
	}
	s.observe(clock.Sample{Sent: sent, Received: p.GetReceiveTime().AsTime(), Answered: p.GetTransmitTime().AsTime(), Returned: local})
}

// redirect ends the session after the delay. It says no Goodbye: that would make the server move the prober's checks.
func (s *session) redirect(r *meshv1.Redirect) {
	delay := time.Duration(0)
	if r.GetDelay().CheckValid() == nil {
		delay = min(max(0, r.GetDelay().AsDuration()), redirectMax)
	}
	time.AfterFunc(delay, func() { s.end(&redirected{addresses: r.GetAddresses(), reason: r.GetReason()}) })
}

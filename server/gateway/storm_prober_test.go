//go:build linux

package gateway

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/assignment"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// stormProber is a prober as the gateway sees it: it takes assignments, probes on schedule, answers runs, pings, and says STATE after Welcome.
type stormProber struct {
	fleet *stormFleet
	hello *meshv1.Hello
	// lost counts sessions that ended without the test's doing; why is the last one's error.
	lost   atomic.Int32
	why    atomic.Value
	living sync.WaitGroup
	cancel context.CancelFunc // the test's goroutine only

	mu       sync.Mutex // guards everything below
	held     map[string]held
	sequence uint64
	stream   meshv1.SessionService_SessionClient
	welcomed func()
}

// held is an assignment.
type held struct {
	fingerprint uint64
	revision    int64
}

const (
	// stormPing is how often a prober pings. Real ones ping each second; they are not on the server's cores. Pongs are as often as the server asks.
	stormPing = 10 * time.Second
	// stormDialling is how many probers connect and say Hello at the same time: as soon as one is welcomed, the next begins. As many as a listener commonly lets wait.
	stormDialling = 1024
	// stormProbe is how often each assignment's result is said anew.
	stormProbe = 20 * time.Second
)

// begin lives on a connection until leave, and calls welcomed at the first Welcome.
func (p *stormProber) begin(conn *grpc.ClientConn, jitter time.Duration, welcomed func()) {
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.Lock()
	p.welcomed = welcomed
	p.mu.Unlock()
	p.living.Go(func() {
		defer conn.Close()
		pause := time.Duration(rand.Int64N(int64(jitter)))
		for backoff := time.Second; ; backoff = min(2*backoff, 10*time.Second) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			select {
			case <-ctx.Done():
				return
			case p.fleet.dialling <- struct{}{}:
			}
			welcomed := sync.OnceFunc(func() { <-p.fleet.dialling })
			err := p.session(ctx, conn, welcomed)
			welcomed()
			if ctx.Err() == nil {
				p.lost.Add(1)
				p.why.Store(err.Error())
			}
			pause = time.Second + time.Duration(rand.Int64N(int64(backoff)))
		}
	})
}

// leave ends the session without a word, as a connection that breaks, and lives no more.
func (p *stormProber) leave() {
	if p.cancel != nil {
		p.cancel()
	}
}

// session has one session, and calls dialled with its Welcome.
func (p *stormProber) session(ctx context.Context, conn *grpc.ClientConn, dialled func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := meshv1.NewSessionServiceClient(conn).Session(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	p.mu.Lock()
	h := proto.CloneOf(p.hello)
	h.Digest, h.FirstSequence, h.LastSequence = p.digestLocked(), p.sequence+1, p.sequence
	_ = stream.Send(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Hello{Hello: h}}) // its fault comes to Recv
	p.stream = stream
	p.mu.Unlock()
	p.repeat(ctx, stormPing, func() {
		p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Ping{Ping: &meshv1.Ping{Id: 1, OriginateTime: timestamppb.Now()}}})
	})
	p.repeat(ctx, stormProbe, func() { p.results(meshv1.ResultBatch_LIVE) })
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetWelcome() != nil {
			dialled()
		}
		p.take(m)
	}
}

// repeat does something every so often, beginning at random, until ctx ends.
func (p *stormProber) repeat(ctx context.Context, every time.Duration, do func()) {
	p.later(ctx, time.Duration(rand.Int64N(int64(every))), every, do)
}

func (p *stormProber) later(ctx context.Context, first, every time.Duration, do func()) {
	time.AfterFunc(first, func() {
		if ctx.Err() == nil {
			do()
			p.later(ctx, every, every, do)
		}
	})
}

func (p *stormProber) take(m *meshv1.ServerMessage) {
	switch m := m.GetMessage().(type) {
	case *meshv1.ServerMessage_Welcome:
		p.results(meshv1.ResultBatch_STATE)
		p.mu.Lock()
		welcomed := p.welcomed
		p.welcomed = nil
		p.mu.Unlock()
		if welcomed != nil {
			welcomed()
		}
	case *meshv1.ServerMessage_Ping:
		now := timestamppb.Now()
		p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Pong{Pong: &meshv1.Pong{Id: m.Ping.GetId(), OriginateTime: m.Ping.GetOriginateTime(), ReceiveTime: now, TransmitTime: now}}})
	case *meshv1.ServerMessage_InventoryRequest:
		p.inventory()
	case *meshv1.ServerMessage_AssignmentUpdate:
		p.update(m.AssignmentUpdate)
	case *meshv1.ServerMessage_RunNow:
		p.fleet.note(m.RunNow.GetCheck())
		p.vote(m.RunNow.GetCheck(), m.RunNow.GetRunId())
	}
}

func (p *stormProber) inventory() {
	i := &meshv1.Inventory{Last: true}
	p.mu.Lock()
	for name, h := range p.held {
		i.Items = append(i.Items, &meshv1.InventoryItem{Check: name, Fingerprint: h.fingerprint})
	}
	p.mu.Unlock()
	p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Inventory{Inventory: i}})
}

// update takes assignments, acknowledges, and probes what is new.
func (p *stormProber) update(u *meshv1.AssignmentUpdate) {
	p.mu.Lock()
	for _, a := range u.GetUpserts() {
		p.held[a.GetCheck().GetName()] = held{a.GetFingerprint(), a.GetCheck().GetRevision()}
	}
	for _, r := range u.GetRemovals() {
		delete(p.held, r)
	}
	ack := &meshv1.AssignmentAck{Revision: u.GetRevision(), Digest: p.digestLocked(), Held: int32(len(p.held))}
	p.mu.Unlock()
	if u.GetLast() {
		p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_AssignmentAck{AssignmentAck: ack}})
		p.results(meshv1.ResultBatch_LIVE)
	}
}

func (p *stormProber) digestLocked() uint64 {
	var d assignment.Digest
	for name, h := range p.held {
		d.Add(name, h.fingerprint)
	}
	return uint64(d)
}

func (p *stormProber) holds() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held)
}

func (p *stormProber) runs(check string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.held[check]
	return ok
}

// say sends; a stream that has ended takes nothing, which its receiver hears.
func (p *stormProber) say(m *meshv1.ProberMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream != nil {
		_ = p.stream.Send(m)
	}
}

// liveLocked is a result that goes to the history, and has a number therefore.
func (p *stormProber) liveLocked(check, run string) *meshv1.Result {
	r := p.resultLocked(check, run)
	p.sequence++
	r.Sequence = p.sequence
	return r
}

// resultLocked is what a probe gives now.
func (p *stormProber) resultLocked(check, run string) *meshv1.Result {
	r := &meshv1.Result{Check: check, RunId: run, CheckRevision: p.held[check].revision, StartTime: timestamppb.Now(), Duration: durationpb.New(time.Millisecond),
		Outcome: meshv1.Result_OK}
	if _, down := p.fleet.down.Load(check); down {
		r.Outcome, r.ErrorClass, r.Error = meshv1.Result_FAIL, meshv1.Result_CONNECTION_REFUSED, "connection refused"
	}
	return r
}

// results says a result of every assignment.
func (p *stormProber) results(kind meshv1.ResultBatch_Kind) {
	b := &meshv1.ResultBatch{Kind: kind}
	p.mu.Lock()
	for name := range p.held {
		if kind == meshv1.ResultBatch_STATE {
			b.Results = append(b.Results, p.resultLocked(name, ""))
		} else {
			b.Results = append(b.Results, p.liveLocked(name, ""))
		}
	}
	p.mu.Unlock()
	for chunk := range slices.Chunk(b.Results, batchMax) {
		p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: &meshv1.ResultBatch{Kind: kind, Results: chunk}}})
	}
}

// vote says one result.
func (p *stormProber) vote(check, run string) {
	p.mu.Lock()
	b := &meshv1.ResultBatch{Kind: meshv1.ResultBatch_LIVE, Results: []*meshv1.Result{p.liveLocked(check, run)}}
	p.mu.Unlock()
	p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: b}})
}

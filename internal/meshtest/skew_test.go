package meshtest

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// skews sets the clocks of nodes. A bubble has one clock; so that nodes differ, every time in what one says to another is moved by the difference of their clocks: each
// lives by its own clock, and meets the other's as it would. Times in etcd are not moved.
//
// It also takes guards away, for the tests that show what they are worth.
type skews struct {
	mu sync.Mutex
	by map[string]time.Duration // how far the clock of a node is ahead
	// forgetful: nobody tells the votes of before anew when a stream begins, neither a prober nor a server.
	forgetful bool
}

func newSkews() *skews { return &skews{by: map[string]time.Duration{}} }

func (k *skews) set(node string, ahead time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.by[node] = ahead
}

// ahead is how far the clock of one node is ahead of another's.
func (k *skews) ahead(of, than string) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.by[of] - k.by[than]
}

func (k *skews) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetful = true
}

func (k *skews) forgets() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.forgetful
}

// options are for the connections that a node makes to servers.
func (k *skews) options(node string) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := streamer(ctx, d, cc, method, o...)
		if err != nil {
			return nil, err
		}
		to := strings.TrimSuffix(strings.TrimPrefix(cc.Target(), "passthrough:///"), ":7700")
		return &skewed{s, k, node, to, time.Now()}, nil
	})}
}

// skewed is a stream between two nodes.
type skewed struct {
	grpc.ClientStream
	k        *skews
	from, to string
	since    time.Time
}

func (s *skewed) SendMsg(m any) error {
	if p, ok := m.(*meshv1.ProberMessage); ok && p.GetResults().GetKind() == meshv1.ResultBatch_STATE && s.k.forgets() {
		return nil
	}
	if d := s.k.ahead(s.from, s.to); d != 0 {
		c, err := anew(m.(proto.Message))
		if err != nil {
			return err
		}
		shift(c.ProtoReflect(), d)
		m = c
	}
	return s.ClientStream.SendMsg(m)
}

func (s *skewed) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	if d := s.k.ahead(s.to, s.from); d != 0 {
		shift(m.(proto.Message).ProtoReflect(), d)
	}
	if f, ok := m.(*peerv1.FollowResponse); ok && s.k.forgets() && f.GetVotes() != nil {
		v := f.GetVotes()
		var live []*meshv1.Result
		for _, r := range v.GetResults() {
			if r.GetStartTime().AsTime().After(s.since.Add(-time.Second)) {
				live = append(live, r)
			}
		}
		v.Results = live
	}
	return nil
}

// anew is a message as whoever reads it decodes it: senders put in some of what they encoded before.
func anew(m proto.Message) (proto.Message, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	c := m.ProtoReflect().New().Interface()
	return c, proto.Unmarshal(b, c)
}

// shift moves every time in a message.
func shift(m protoreflect.Message, d time.Duration) {
	if t, ok := m.Interface().(*timestamppb.Timestamp); ok {
		*t = timestamppb.Timestamp{Seconds: t.AsTime().Add(d).Unix(), Nanos: int32(t.AsTime().Add(d).Nanosecond())}
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				shift(v.List().Get(i).Message(), d)
			}
		default:
			shift(v.Message(), d)
		}
		return true
	})
}

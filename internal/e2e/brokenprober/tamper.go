package main

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// memory is what a prober first heard of each check.
type memory struct {
	mu    sync.Mutex // guards first
	first map[string]*meshv1.Check
}

// of gives the check as it was at first.
func (m *memory) of(c *meshv1.Check) *meshv1.Check {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first == nil {
		m.first = map[string]*meshv1.Check{}
	}
	if m.first[c.GetName()] == nil {
		m.first[c.GetName()] = proto.CloneOf(c)
	}
	return m.first[c.GetName()]
}

// tamper plants the faults that lie in what the prober says to servers, and not in what it sees.
func tamper(fault string) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := stream(ctx, desc, cc, method, opts...)
		if err != nil {
			return nil, err
		}
		return &tampered{s, fault}, nil
	}
}

type tampered struct {
	grpc.ClientStream
	fault string
}

// SendMsg sends something else.
func (t *tampered) SendMsg(m any) error {
	said, ok := m.(*meshv1.ProberMessage)
	if !ok {
		return t.ClientStream.SendMsg(m)
	}
	shift := map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour}[t.fault]
	if shift == 0 && t.fault != "protocol" {
		return t.ClientStream.SendMsg(m)
	}
	// As whoever reads it decodes it: the prober puts in some of what it encoded before.
	b, err := proto.Marshal(said)
	if err != nil {
		return err
	}
	said = &meshv1.ProberMessage{}
	if err := proto.Unmarshal(b, said); err != nil {
		return err
	}
	if h := said.GetHello(); h != nil && t.fault == "protocol" {
		h.Protocol = 0
	}
	for _, r := range said.GetResults().GetResults() {
		r.StartTime = timestamppb.New(r.GetStartTime().AsTime().Add(shift))
	}
	return t.ClientStream.SendMsg(said)
}

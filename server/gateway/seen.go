package gateway

import (
	"context"
	"net"
	"net/netip"

	"google.golang.org/grpc/peer"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// addressOf is where a stream comes from, as this server sees it; the zero Addr when the transport has no IP address.
func addressOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	a, ok := p.Addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap()
}

// canariesMax and canaryTextMax bound what a Ping says of canaries: it is part of every answer about the prober.
const (
	canariesMax   = 4
	canaryTextMax = 300
)

func canariesOf(p *meshv1.Ping) []*meshv1.CanaryState {
	list := p.GetCanaries()
	list = list[:min(len(list), canariesMax)]
	for _, c := range list {
		if len(c.GetError()) > canaryTextMax {
			c.Error = clip(c.GetError())
		}
		if len(c.GetFamily()) > canaryTextMax {
			c.Family = clip(c.GetFamily())
		}
	}
	return list
}

package blackbox

import (
	"context"
	"net"
	nethttp "net/http"
	"sync"
	"time"

	pconfig "github.com/prometheus/common/config"

	"github.com/probemesh/probemesh/prober/probe"
)

// maxClients is how many HTTP clients are kept for modules and the names that they verify.
const maxClients = 1024

// clientKey tells clients apart: by module, and by the name to verify.
type clientKey struct {
	module *Module
	name   string
}

// clients keeps what is costly to make of a module's options for HTTP: no connection, which every probe opens anew, but TLS and proxy settings. Files
// that the options name are read again by the client itself when they change.
type clients struct {
	fence *probe.Fence
	mu    sync.Mutex
	kept  map[clientKey]nethttp.RoundTripper
}

func newClients(fence *probe.Fence) *clients {
	return &clients{fence: fence, kept: map[clientKey]nethttp.RoundTripper{}}
}

// get gives a client for a module that verifies a name. Modules with OAuth 2 get a new one for each probe, since a client keeps its token.
func (c *clients) get(m *Module, name string) (nethttp.RoundTripper, error) {
	key := clientKey{m, name}
	c.mu.Lock()
	defer c.mu.Unlock()
	if rt := c.kept[key]; rt != nil {
		return rt, nil
	}
	config := m.HTTP.Client
	config.TLSConfig.ServerName = name
	dialer := net.Dialer{KeepAlive: -1, FallbackDelay: 250 * time.Millisecond, Control: c.fence.Control}
	rt, err := pconfig.NewRoundTripperFromConfig(config, "blackbox", pconfig.WithKeepAlivesDisabled(),
		pconfig.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		}))
	if err != nil || config.OAuth2 != nil {
		return rt, err
	}
	if len(c.kept) >= maxClients {
		for k := range c.kept { // any one
			delete(c.kept, k)
			break
		}
	}
	c.kept[key] = rt
	return rt, nil
}

// close forgets all clients.
func (c *clients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.kept)
}

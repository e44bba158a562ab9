package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// startTimeout is how long a follower may take to say who it is.
const startTimeout = 10 * time.Second

type followStream = grpc.BidiStreamingServer[peerv1.FollowRequest, peerv1.FollowResponse]

// Follow serves one follower.
func (p *Peers) Follow(stream followStream) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	select {
	case <-p.running:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer context.AfterFunc(p.stop, func() { cancel(errStopping) })()
	start, err := receiveStart(ctx, stream)
	if err != nil {
		return ending(ctx, err)
	}
	p.awaitKnown(ctx, start.GetServer())
	f, err := p.welcome(ctx, start)
	if err != nil {
		p.complain(start, err)
		return err
	}
	defer p.leave(f)
	err = f.run(ctx, stream)
	why := ending(ctx, err)
	log := p.log
	if why != nil { // nil: it hung up
		log = log.With("why", why)
	}
	log.Info("a server follows no more", "server", f.other.name)
	return why
}

// complainEvery is how often a refusal of the same follower for the same reason is logged.
const complainEvery = time.Minute

// complain logs why a follower is refused; it tries again many times a minute.
func (p *Peers) complain(s *peerv1.Start, err error) {
	p.m.refused(reasonOf(err))
	now := time.Now()
	what := clip(s.GetServer()) + " " + reasonOf(err)
	p.mu.Lock()
	again := p.complaint == what && now.Sub(p.complained) < complainEvery
	if !again {
		p.complaint, p.complained = what, now
	}
	p.mu.Unlock()
	if !again {
		p.log.Warn("a follower is refused", "server", clip(s.GetServer()), "boot_id", clip(s.GetBootId()), "err", err)
	}
}

// knownPatience is how long a follower that is not known yet is kept waiting: servers that start together read in the store of each other one after the other. It is less
// than a follower waits.
const knownPatience = attemptTimeout * 3 / 4

// awaitKnown waits until a server is known, but not for long.
func (p *Peers) awaitKnown(ctx context.Context, server string) {
	timer := time.NewTimer(knownPatience)
	defer timer.Stop()
	for server != p.name {
		p.mu.Lock()
		known, changed := p.others[server] != nil, p.changed
		p.mu.Unlock()
		if known {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-changed:
		}
	}
}

// errStopping ends streams when the server stops.
var errStopping = fault.New(codes.Unavailable, meshv1.ErrorReason_SHUTTING_DOWN, "", "this server is stopping").Retry(backoffMin)

func receiveStart(ctx context.Context, stream followStream) (*peerv1.Start, error) {
	type first struct {
		m   *peerv1.FollowRequest
		err error
	}
	// Recv cannot be given a deadline; it ends with the stream, which ends when the handler returns.
	got := make(chan first, 1)
	go func() {
		m, err := stream.Recv()
		got <- first{m, err}
	}()
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, broken("no Start came within %s", startTimeout)
	case f := <-got:
		if errors.Is(f.err, io.EOF) {
			return nil, broken("it ended before Start")
		}
		if f.err == nil && f.m.GetStart() == nil {
			return nil, broken("the first message must be Start")
		}
		return f.m.GetStart(), f.err
	}
}

// welcome checks who wants to follow, and makes its feed.
func (p *Peers) welcome(ctx context.Context, s *peerv1.Start) (*feed, error) {
	if s.GetProtocol() != Protocol {
		return nil, fault.New(codes.FailedPrecondition, meshv1.ErrorReason_PROTOCOL_UNSUPPORTED, clip(s.GetServer()),
			"the follower speaks protocol %d and %s speaks %d; upgrade the older server", s.GetProtocol(), p.name, Protocol)
	}
	if name, err := spec.ParseName(spec.Servers, s.GetServer()); err != nil || s.GetServer() != name {
		return nil, broken("Start names the server %q; write servers/ and 1 to 63 characters of a-z, 0-9 and -", clip(s.GetServer()))
	}
	if s.GetBootId() == "" || len(s.GetBootId()) > 200 {
		return nil, broken("Start lacks the boot id, or it is longer than 200 bytes")
	}
	if s.GetServer() == p.name {
		return nil, taken(p.name, p.cfg.BootID)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.others[s.GetServer()]
	if o == nil {
		return nil, fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, s.GetServer(),
			"%s does not know %s: it is not among the servers in etcd, or not yet; do both use the same etcd?", p.name, s.GetServer()).Retry(backoffMin)
	}
	if err := p.authorise(ctx, o); err != nil {
		return nil, err
	}
	if o.feed != nil {
		if o.feed.boot != s.GetBootId() {
			return nil, taken(o.name, o.feed.boot)
		}
		o.feed.cancel(errReplaced)
	}
	f := newFeed(p, o, s)
	o.feed, o.wanted, o.seen = f, true, time.Now()
	p.feeds[f] = struct{}{}
	f.beat = p.beat
	// If it lives, then this server may follow it too: at once, and not when the next attempt is due.
	if o.asks == nil {
		o.boot = s.GetBootId()
		signal(o.kick)
		signal(p.review)
	}
	return f, nil
}

var errReplaced = fault.New(codes.Aborted, meshv1.ErrorReason_SESSION_BROKEN, "", "the same server follows anew")

func taken(name, boot string) error {
	return fault.New(codes.AlreadyExists, meshv1.ErrorReason_SERVER_NAME_TAKEN, name, "another process (boot %s) is %s; give this one another --name, or stop the other", boot, name)
}

// authorise checks that who presents a certificate presents one that is valid for the server's address, as servers do: they show the same certificate as servers and
// as clients. A prober's is not. Without client certificates there is nothing to check.
func (p *Peers) authorise(ctx context.Context, o *other) error {
	who, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := who.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	host := p.cfg.ServerName
	if host == "" {
		host, _, _ = net.SplitHostPort(o.address)
	}
	if err := info.State.PeerCertificates[0].VerifyHostname(host); err != nil {
		return fault.New(codes.PermissionDenied, meshv1.ErrorReason_SESSION_BROKEN, o.name,
			"the client certificate is not that of %s: %v; only servers may follow, with the certificate that they show at their own address", o.name, err)
	}
	return nil
}

// leave ends what welcome began.
func (p *Peers) leave(f *feed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.feeds, f)
	if f.other.feed == f {
		f.other.feed, f.other.wanted, f.other.seen = nil, false, time.Now()
	}
}

// clip cuts what a stranger sent to what a message can show.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

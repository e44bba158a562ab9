package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxQuestions is how many questions a probe asks besides its own, of the server and of the resolver together.
const maxQuestions = 64

// asker asks what a probe needs to know besides the answer to its own question: of the server of the check, and where that does not know, of the prober's own resolver.
type asker struct {
	r         *runner
	server    *peer
	resolver  *peer // nil until it is needed
	questions int
	broken    string // why the resolver could not be asked what the server does not know, which is the prober's own trouble; empty when that did not happen
	known     map[dns.Question]*dns.Msg
}

func newAsker(r *runner, server *peer) *asker {
	return &asker{r: r, server: server, known: make(map[dns.Question]*dns.Msg)}
}

// close ends the lines to the resolver; those to the server stay.
func (k *asker) close() {
	if k.resolver != nil {
		k.resolver.close()
	}
}

// ask gives an answer that says what there is: one from a server that is authoritative or recurses.
func (k *asker) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	key := dns.Question{Name: dns.CanonicalName(name), Qtype: kind, Qclass: dns.ClassINET}
	if m := k.known[key]; m != nil {
		return m, nil
	}
	q, err := k.r.newQuestion(key, flags{recursion: true, unchecked: true})
	if err != nil {
		return nil, err
	}
	m, err := k.askPeer(ctx, k.server, q, key)
	if err != nil && k.r.target.Host != "" && ctx.Err() == nil {
		m, err = k.elsewhere(ctx, q, key, err)
	}
	if err != nil {
		return nil, fmt.Errorf("asked for %s %s, the server said: %s", key.Name, dns.Type(kind), reason(err))
	}
	k.known[key] = m
	return m, nil
}

// elsewhere asks the prober's own resolver what the server did not tell, for a reason that is given.
func (k *asker) elsewhere(ctx context.Context, q *question, key dns.Question, why error) (*dns.Msg, error) {
	var answered *unhelpful
	innocent := errors.As(why, &answered) // a server need not know what is not its own
	resolver, err := k.own()
	if err != nil {
		if innocent {
			k.broken = err.Error()
		}
		return nil, fmt.Errorf("%w; %w", why, err)
	}
	m, err := k.askPeer(ctx, resolver, q, key)
	if err == nil {
		return m, nil
	}
	if innocent && !errors.As(err, &answered) && k.questions <= maxQuestions {
		k.broken = fmt.Sprintf("this prober's own resolver %s gives no answer: %s", resolver.host, reason(err))
	}
	return nil, fmt.Errorf("%w; the prober's resolver %s: %s", why, resolver.host, reason(err))
}

// unhelpful is an answer that does not tell what there is.
type unhelpful struct{ why string }

func (u *unhelpful) Error() string { return u.why }

// own is the prober's own resolver.
func (k *asker) own() (*peer, error) {
	if k.resolver == nil {
		host, err := k.r.resolver()
		if err != nil {
			return nil, errors.New("this prober has no resolver of its own")
		}
		k.resolver = &peer{r: k.r, own: true, transport: meshv1.DnsProbe_UDP, host: host, port: portPlain}
	}
	return k.resolver, nil
}

func (k *asker) askPeer(ctx context.Context, p *peer, q *question, key dns.Question) (*dns.Msg, error) {
	if k.questions++; k.questions > maxQuestions {
		return nil, fmt.Errorf("more than %d questions were needed", maxQuestions)
	}
	got, err := p.patiently(ctx, q)
	if err != nil {
		return nil, err
	}
	if why := useless(got.msg, key); why != "" {
		return nil, &unhelpful{why}
	}
	return got.msg, nil
}

// useless says why an answer does not tell what there is; empty when it does.
func useless(m *dns.Msg, key dns.Question) string {
	switch {
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		if opt := m.IsEdns0(); opt != nil {
			if e := extendedErrors(opt); len(e) > 0 {
				return rcode(m) + " (" + strings.Join(e, ", ") + ")"
			}
		}
		return rcode(m)
	case !m.Authoritative && !m.RecursionAvailable && len(m.Answer) == 0:
		return "it neither knows the zone nor recurses"
	case key.Qtype == dns.TypeDS && len(m.Answer) == 0:
		for _, rr := range m.Ns { // the child answers, who does not know its delegation
			if soa, ok := rr.(*dns.SOA); ok && strings.EqualFold(soa.Hdr.Name, key.Name) && key.Name != "." {
				return "it does not know the zone above"
			}
		}
	}
	return ""
}

// reason is an error in few words, without the addresses that the sentence around it tells.
func reason(err error) string {
	var f *probe.Failure
	var op *net.OpError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	case errors.As(err, &f):
		return f.Sentence
	case errors.As(err, &op) && op.Err != nil:
		return op.Err.Error()
	}
	return err.Error()
}

// trustAnchors are the anchors of a check, by default the root's.
func trustAnchors(texts []string) ([]dns.RR, error) {
	if len(texts) == 0 {
		texts = rootAnchors()
	}
	var out []dns.RR
	for _, t := range texts {
		rr, err := spec.TrustAnchor(t)
		if err != nil {
			return nil, fmt.Errorf("dns.dnssec.anchors: %w", err)
		}
		out = append(out, rr)
	}
	return out, nil
}

// rootAnchors are the DS records of the root's key-signing keys, as IANA publishes them at https://data.iana.org/root-anchors/root-anchors.xml: KSK-2017 (valid from 2017-02-02) and KSK-2024
// (valid from 2024-07-18).
func rootAnchors() []string {
	return []string{
		". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
		". IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16",
	}
}

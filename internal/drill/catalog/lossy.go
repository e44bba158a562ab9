package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/drill/netns"
	"github.com/probemesh/probemesh/internal/localmesh"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// What packet-loss does: two of five datacenters share an upstream provider that loses every seventh packet, as one did in March 2012 under a large monitoring service,
// which then told of outages that nobody else saw.
const (
	lossyDatacenters = 5
	lossyShare       = 0.15
	lossyProvider    = "acme"
	lossyTargets     = 12
	// lossyExtra is what the loss may delay the alert of a real outage by: a packet of a prober's session that is lost is sent again after 0.2 s or more.
	lossyExtra = 3 * time.Second
)

func packetLoss() drill.Scenario {
	return drill.Scenario{
		Name:    "packet-loss",
		Summary: "two of five datacenters, of one provider, lose 15 % of their packets for a quarter of an hour, while two targets really go down and come back",
		Proves:  "Probers behind a bad line page nobody: their own canaries, or their disagreement with everybody else, set them aside, and operators are told which provider it is.",
		Promise: "right: no alert but of the real outages, and an incident of the mesh that names the provider",
		Times:   1, ShortTimes: 1, About: 16 * time.Minute, ShortAbout: 2 * time.Minute,
		Requires: []drill.Requirement{drill.OwnNetworks()},
		Run:      runPacketLoss,
	}
}

func runPacketLoss(ctx context.Context, r *drill.Run) error {
	length := 15 * time.Minute
	if r.Short {
		length = 90 * time.Second
	}
	m, n, err := r.StartMeshOnNetwork(ctx, lossyDatacenters, func(o *localmesh.Options) { o.Args = providers })
	if err != nil {
		return err
	}
	url, err := r.Outside(n)
	if err != nil {
		return err
	}
	targets, err := r.WatchMore(ctx, m, drill.Watched{Targets: lossyTargets, TCP: lossyTargets / 4, Host: n.Outside(), ReceiverURL: url})
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := lose(r, m, n, netns.Slow(0, lossyShare)); err != nil {
		return err
	}
	r.Say("the datacenters of provider %s lose %.0f %% of their packets from now on, for %s", lossyProvider, 100*lossyShare, length)
	var events []event
	for i, share := range []float64{0.3, 0.6} {
		t := targets[i]
		down := begin.Add(time.Duration(share * float64(length)))
		events = append(events,
			event{down, func() error { t.Break(drill.Refuse, r.HangBound(lossyExtra)); return nil }},
			event{down.Add(length / 5), t.Mend})
	}
	seen := &meshTrouble{}
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); seen.watch(watching, m) }()
	err = play(ctx, events)
	if err == nil {
		err = drill.Sleep(ctx, time.Until(begin.Add(length)))
	}
	stop()
	<-watched
	if err != nil {
		return err
	}
	if err := lose(r, m, n, netns.Fault{}); err != nil {
		return err
	}
	r.Say("no packet is lost any more")
	if err := r.ConcludeAlerts(ctx); err != nil {
		return err
	}
	return seen.conclude(ctx, r, m)
}

// providers says of each prober who runs its datacenter: the last two have one provider.
func providers(x *localmesh.Member) []string {
	if !strings.Contains(x.Name, "-") { // a server
		return nil
	}
	provider := lossyProvider
	if !lossy(x.Datacenter) {
		provider = "of-" + x.Datacenter
	}
	return []string{"--label", "provider=" + provider}
}

func lossy(datacenter string) bool {
	return datacenter == localmesh.Datacenter(lossyDatacenters-1) || datacenter == localmesh.Datacenter(lossyDatacenters-2)
}

// lose brings a fault about in both datacenters of the provider.
func lose(r *drill.Run, m *drill.Mesh, n *netns.Network, f netns.Fault) error {
	for _, s := range m.Servers() {
		if lossy(s.Datacenter) {
			if err := n.Set(s.Datacenter, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// meshTrouble is what a mesh said of its own probers meanwhile.
type meshTrouble struct {
	unknown time.Duration // how long any check had no verdict
	errors  int           // probes that said ERROR of themselves, as far as the votes showed
}

// watch looks at the verdicts four times a second.
func (s *meshTrouble) watch(ctx context.Context, m *drill.Mesh) {
	const every = 250 * time.Millisecond
	for drill.Sleep(ctx, every) == nil {
		leader, _, err := m.Leader(ctx)
		if err != nil {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, time.Second)
		resp, err := m.Client(leader).Statuses.ListStatuses(ask, &meshv1.ListStatusesRequest{PageSize: 100})
		cancel()
		if err != nil {
			continue
		}
		if slices.ContainsFunc(resp.GetStatuses(), func(c *meshv1.CheckStatus) bool { return c.GetVerdict() == meshv1.CheckStatus_UNKNOWN }) {
			s.unknown += every
		}
		for _, c := range resp.GetStatuses() {
			for _, v := range c.GetVotes() {
				if v.GetOutcome() == meshv1.Result_ERROR {
					s.errors++
				}
			}
		}
	}
}

// conclude counts the incidents of the mesh about probers, and those that name another cause than the provider.
func (s *meshTrouble) conclude(ctx context.Context, r *drill.Run, m *drill.Mesh) error {
	all, err := m.AllIncidents(ctx)
	if err != nil {
		return err
	}
	var provider, part, wrong, checks []string
	for _, i := range all {
		text := fmt.Sprintf("%s: %s", i.GetName(), i.GetSummary())
		switch {
		case i.GetKind() == meshv1.Incident_CHECK:
			checks = append(checks, text)
		case i.GetReason() != meshv1.CheckStatus_SUSPECT_PROBERS:
		case strings.Contains(i.GetSummary(), "provider="+lossyProvider):
			provider = append(provider, text)
		case names(i.GetSummary()):
			part = append(part, text)
		default:
			wrong = append(wrong, text)
		}
	}
	r.Inform("incidents_of_targets", "incidents", float64(len(checks)), "two targets really went down", checks...)
	if r.Short {
		r.Inform("incidents_naming_the_provider", "incidents", float64(len(provider)), "a minute and a half may be too short for the evidence against all of it", provider...)
		r.AtLeast("incidents_naming_it_or_a_part", "incidents", float64(len(provider)+len(part)), 1, "but not for that against any of it")
	} else {
		r.AtLeast("incidents_naming_the_provider", "incidents", float64(len(provider)), 1, "operators are told what the probers that lose packets have in common", provider...)
	}
	r.Inform("incidents_naming_a_part", "incidents", float64(len(part)), "before there was evidence against both, one of its datacenters or probers", part...)
	r.AtMost("probers_set_aside_wrongly", "incidents", float64(len(wrong)), 0, "the other probers are sound", wrong...)
	r.Inform("seconds_with_an_unknown_verdict", "seconds", s.unknown.Seconds(), "nobody is paged for a check that too few probers can see")
	r.Inform("votes_that_said_error", "votes", float64(s.errors), "a prober whose canaries fail says ERROR, and not FAIL; looked at four times a second")
	return nil
}

// names tells whether a text is about a datacenter or a prober of what loses packets.
func names(text string) bool {
	for i := lossyDatacenters - 2; i < lossyDatacenters; i++ {
		d := localmesh.Datacenter(i)
		if strings.Contains(text, "datacenter="+d) || strings.Contains(text, d+"-1") {
			return true
		}
	}
	return false
}

package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// told is what a test has a result tell besides its outcome.
type told func(i int, r *meshv1.Result)

// aliasOf says of what every host is an alias.
func aliasOf(names ...string) told {
	return func(_ int, r *meshv1.Result) { r.CanonicalNames = names }
}

// issued says who issued the certificates, by the handshake or, of one that failed, by the evidence.
func issued(issuers ...string) told {
	return func(_ int, r *meshv1.Result) {
		if r.ErrorClass != meshv1.Result_TLS {
			r.Tls = &meshv1.TlsResult{Issuers: issuers}
			return
		}
		r.Evidence = &meshv1.Evidence{}
		for _, x := range issuers {
			r.Evidence.Certificates = append(r.Evidence.Certificates, &meshv1.Certificate{Issuer: x})
		}
	}
}

// sharedRig is a massRig whose n checks share no host, address, network or label, and of which the results of all tell what is given.
func sharedRig(t *testing.T, n int, tells told) (*rig, []string) {
	r, places := massRig(t, n, func(int, *meshv1.Check) {})
	r.tell(ok, 0, tells, places...)
	r.after(20 * time.Second)
	r.owed, r.asked, r.acted = nil, nil, nil
	return r, places
}

// tell has the probers of the datacenters vote alike on the checks whose numbers are given, or all. A failure is one of the class, unless that is 0.
func (r *rig) tell(outcome meshv1.Result_Outcome, class meshv1.Result_ErrorClass, tells told, places ...string) {
	r.tellOf(func(int) bool { return true }, outcome, class, tells, places...)
}

func (r *rig) tellOf(which func(int) bool, outcome meshv1.Result_Outcome, class meshv1.Result_ErrorClass, tells told, places ...string) {
	for _, d := range places {
		for i, n := range r.s.Names() {
			if which(i) {
				r.apply(Cast{Prober: d + "-1", Result: r.said(i, n, outcome, class, tells)})
			}
			r.now = r.now.Add(20 * time.Microsecond)
		}
	}
}

func (r *rig) said(i int, check string, outcome meshv1.Result_Outcome, class meshv1.Result_ErrorClass, tells told) *meshv1.Result {
	x := &meshv1.Result{Check: check, StartTime: timestamppb.New(r.now), Outcome: outcome, ErrorClass: class, CheckRevision: r.s.checks[check].workHash,
		RemoteAddress: fmt.Sprintf("10.%d.%d.7:443", i/200, i%200)}
	if tells != nil {
		tells(i, x)
	}
	return x
}

// answerAsked has every run answered that was asked for of checks that answer.
func (r *rig) answerAsked(answers func(int) bool, tells told) {
	names := r.s.Names()
	for _, a := range r.asked {
		if i := slices.Index(names, a.Run.GetCheck()); i >= 0 && answers(i) {
			r.apply(Cast{Prober: a.Prober, Result: r.said(i, a.Run.GetCheck(), ok, 0, tells)})
			r.now = r.now.Add(time.Millisecond)
		}
	}
	r.asked = nil
}

// named is the one group that is open, as dimension=value; "" without one.
func (r *rig) named() string {
	g := r.openGroups()
	if len(g) != 1 {
		return fmt.Sprintf("%d groups", len(g))
	}
	x := g[0].GetShared()
	return x.GetDimension() + "=" + x.GetValue()
}

const edge, letsEncrypt = "edge.cdn.example", "CN=R11,O=Let's Encrypt,C=US"

func TestSharedCNAMEThatDiesIsOneIncidentThatNamesIt(t *testing.T) {
	r, places := sharedRig(t, 40, aliasOf(edge))
	// The name does not resolve any more, and probers that were started anew do not know what it was an alias of.
	r.tell(fail, meshv1.Result_RESOLVER_FAILED, func(_ int, x *meshv1.Result) { x.RemoteAddress = "" }, places...)
	r.after(4 * time.Second)
	r.wantOwed("OPENED ")
	g := r.openGroups()[0]
	if r.named() != "cname="+edge || len(g.GetAffectedChecks()) != 40 || g.GetShared().GetMembers() != 40 {
		t.Fatalf("%v", g)
	}
	t.Log(g.GetSummary())
	if !strings.HasPrefix(g.GetSummary(), "40 checks that are aliases of edge.cdn.example are DOWN together (c0000, ") || !strings.Contains(g.GetSummary(), "; 40 are aliases of it, and none is seen to answer.") {
		t.Error(g.GetSummary())
	}
	for range 5 {
		r.after(20 * time.Second)
		r.tell(ok, 0, aliasOf(edge), places...)
	}
	r.after(40 * time.Second)
	r.wantOwed("OPENED ", "RESOLVED ")
	for _, c := range r.s.checks {
		if c.kept != nil {
			t.Fatalf("%s keeps %v though all answer", c.name, c.kept)
		}
	}
}

func TestIntermediateNameExplainsWhereGeographyGivesOthers(t *testing.T) {
	r, places := massRig(t, 30, func(int, *meshv1.Check) {})
	for _, outcome := range []meshv1.Result_Outcome{ok, fail} {
		for k, d := range places {
			r.tell(outcome, 0, aliasOf(edge, fmt.Sprintf("pop-%d.cdn.example", k)), d)
		}
		r.after(4 * time.Second)
	}
	r.wantOwed("OPENED ")
	// All of them are shared by the very same checks, because each has a prober everywhere.
	if g := r.openGroups()[0].GetShared(); r.named() != "cname="+edge || !slices.Contains(g.GetAlso(), "cname=pop-3.cdn.example") {
		t.Errorf("%s also %q", r.named(), g.GetAlso())
	}
}

func TestCanonicalNameIsNamedWhereAllSeeTheSameChain(t *testing.T) {
	r, places := sharedRig(t, 30, aliasOf("z-edge.cdn.example", "a.cdn.example", "m-pop.cdn.example"))
	r.tell(fail, meshv1.Result_TIMEOUT, aliasOf("z-edge.cdn.example", "a.cdn.example", "m-pop.cdn.example"), places...)
	r.after(4 * time.Second)
	if r.named() != "cname=m-pop.cdn.example" {
		t.Error(r.named())
	}
}

func TestCNAMEIsNotBlamedWhileOthersOfItAnswer(t *testing.T) {
	// Every second check fails; the others answer when they are asked, and are not due otherwise.
	r, places := sharedRig(t, 40, aliasOf(edge))
	even := func(i int) bool { return i%2 == 0 }
	r.tellOf(even, fail, meshv1.Result_CONNECTION_REFUSED, aliasOf(edge), places...)
	r.answerAsked(func(i int) bool { return !even(i) }, aliasOf(edge))
	r.after(100 * time.Millisecond)
	r.answerAsked(func(i int) bool { return !even(i) }, aliasOf(edge))
	r.after(4 * time.Second)
	if r.named() != "0 groups" || len(r.owed) != 20 {
		t.Errorf("%s, %d told of", r.named(), len(r.owed))
	}
}

func TestIssuerWhoseCertificatesFailIsOneIncidentThatNamesIt(t *testing.T) {
	r, places := sharedRig(t, 50, func(i int, x *meshv1.Result) {
		if i < 40 {
			issued(letsEncrypt)(i, x)
		} else {
			issued("CN=Other CA")(i, x)
		}
	})
	ours := func(i int) bool { return i < 40 }
	// Some see the certificates that do not verify, others are refused before they see any.
	r.tellOf(ours, fail, meshv1.Result_TLS, func(i int, x *meshv1.Result) {
		if i%2 == 0 {
			issued(letsEncrypt)(i, x)
		}
	}, places...)
	r.after(4 * time.Second)
	r.wantOwed("OPENED ")
	g := r.openGroups()[0]
	if r.named() != "issuer="+letsEncrypt || len(g.GetAffectedChecks()) != 40 {
		t.Fatalf("%v", g)
	}
	t.Log(g.GetSummary())
	if !strings.HasPrefix(g.GetSummary(), "40 checks with certificates issued by CN=R11,O=Let's Encrypt,C=US are DOWN together (") || !strings.Contains(g.GetSummary(), "; 40 have one, and none is seen to answer.") {
		t.Error(g.GetSummary())
	}
	// One that is refused now fails for itself, whoever issued its certificate.
	for range 3 {
		r.after(20 * time.Second)
		r.tell(ok, 0, issued(letsEncrypt), places...)
	}
	r.after(40 * time.Second)
	r.wantOwed("OPENED ", "RESOLVED ")
}

func TestIssuerIsNotNamedWhenConnectionsAreRefused(t *testing.T) {
	r, places := sharedRig(t, 40, issued(letsEncrypt))
	r.tell(fail, meshv1.Result_CONNECTION_REFUSED, nil, places...)
	r.after(4 * time.Second)
	if r.named() != "0 groups" || len(r.owed) != 40 {
		t.Errorf("%s, %d told of", r.named(), len(r.owed))
	}
	// Nor does one that is refused later join a group of those whose certificates fail.
	r, places = sharedRig(t, 41, issued(letsEncrypt))
	r.tellOf(func(i int) bool { return i < 40 }, fail, meshv1.Result_TLS, issued(letsEncrypt), places...)
	r.after(4 * time.Second)
	if r.named() != "issuer="+letsEncrypt {
		t.Fatal(r.named())
	}
	r.tellOf(func(i int) bool { return i == 40 }, fail, meshv1.Result_CONNECTION_REFUSED, nil, places...)
	r.after(4 * time.Second)
	r.wantOwed("OPENED ", "OPENED checks/c0040")
}

func TestIssuerOfMostChecksIsNotBlamedForSome(t *testing.T) {
	// Three hundred checks have it, and those that answer are asked; forty-three fail by TLS, for which nothing else is known.
	r, places := sharedRig(t, 300, issued(letsEncrypt))
	some := func(i int) bool { return i%7 == 3 }
	r.tellOf(some, fail, meshv1.Result_TLS, issued(letsEncrypt), places...)
	asked := 0
	for _, a := range r.asked {
		if i := slices.Index(r.s.Names(), a.Run.GetCheck()); !some(i) {
			asked++
		}
	}
	if asked < 3 || asked > 10 {
		t.Errorf("%d others were asked", asked)
	}
	r.answerAsked(func(i int) bool { return !some(i) }, issued(letsEncrypt))
	r.after(4 * time.Second)
	for _, g := range r.openGroups() {
		if g.GetShared().GetDimension() == "issuer" {
			t.Errorf("blamed: %s", g.GetSummary())
		}
	}
	if len(r.owed) == 0 {
		t.Error("nobody was told")
	}
}

func TestNoVerificationSpeaksNeitherForNorAgainstAnIssuer(t *testing.T) {
	r, places := massRig(t, 60, func(i int, c *meshv1.Check) {
		if i >= 40 {
			c.Uri = strings.Replace(c.Uri, "tcp:", "tls:", 1)
			c.Tls = &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{InsecureSkipVerify: true}}
		}
	})
	for _, d := range places {
		r.apply(r.prober(d+"-1", d))
	}
	r.tell(ok, 0, issued(letsEncrypt), places...)
	r.after(20 * time.Second)
	r.owed = nil
	r.tellOf(func(i int) bool { return i < 40 }, fail, meshv1.Result_TLS, issued(letsEncrypt), places...)
	r.tellOf(func(i int) bool { return i >= 40 }, ok, 0, issued(letsEncrypt), places...)
	r.after(4 * time.Second)
	if r.named() != "issuer="+letsEncrypt {
		t.Errorf("%s: %.200q", r.named(), r.owed)
	}
}

// The values come with results, which every server has; so the next leader goes on with what this one named, and names the same by itself.
func TestNextLeaderNamesWhatTheLastOneNamed(t *testing.T) {
	r, places := sharedRig(t, 40, aliasOf(edge))
	late := func(i int) bool { return i >= 30 }
	r.tellOf(func(i int) bool { return !late(i) }, fail, meshv1.Result_TIMEOUT, nil, places...)
	r.after(4 * time.Second)
	r.wantOwed("OPENED ")
	r.apply(Leadership{Term: 1})
	r.apply(Leadership{Leading: true, Term: 2})
	r.after(10 * time.Second)
	r.tellOf(late, fail, meshv1.Result_TIMEOUT, nil, places...)
	r.after(4 * time.Second)
	r.wantOwed("OPENED ")
	if st, _ := r.s.Status("checks/c0033", r.now, false); r.named() != "cname="+edge || st.GetGroup() == "" {
		t.Errorf("%s, %v", r.named(), st)
	}
	// A server that leads only once all have turned, and that nobody has told of a group.
	r, places = sharedRig(t, 40, aliasOf(edge))
	r.apply(Leadership{Term: 1})
	r.tell(fail, meshv1.Result_TIMEOUT, nil, places...)
	r.apply(Leadership{Leading: true, Term: 2})
	r.tell(fail, meshv1.Result_TIMEOUT, nil, places...)
	r.after(10 * time.Second)
	if r.named() != "cname="+edge {
		t.Errorf("%s: %.200q", r.named(), r.owed)
	}
}

func TestEditOfACheckForgetsWhatItsHostWasAnAliasOf(t *testing.T) {
	r, places := sharedRig(t, 5, aliasOf(edge))
	r.tell(fail, meshv1.Result_TIMEOUT, nil, places...)
	c := r.s.checks["checks/c0001"]
	if !slices.Equal(c.canonicalNames(), []string{edge}) {
		t.Fatalf("%q", c.canonicalNames())
	}
	e, _ := r.s.Explain(c.name, r.now)
	if !strings.Contains(e.GetText(), "\n  an alias of edge.cdn.example\n") {
		t.Error(e.GetText())
	}
	edited := tcpCheck("c0001", 3)
	edited.Uri, edited.Probers = "tcp://elsewhere.example.com:80", 5
	r.check(edited)
	if len(c.canonicalNames()) != 0 || c.kept != nil {
		t.Errorf("%q", c.canonicalNames())
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	c := &check{}
	for i := range 50 {
		c.learn(&meshv1.Result{CanonicalNames: []string{fmt.Sprint("n", i)}, Tls: &meshv1.TlsResult{Issuers: []string{fmt.Sprint("i", i)}}}, &meshv1.Result{Outcome: fail})
	}
	if len(c.kept.names) != maxKept || len(c.kept.issuers) != maxKept {
		t.Errorf("%v", c.kept)
	}
}

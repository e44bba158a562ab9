package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// lose takes the store away: the leader gives up as it would, and everybody hears that etcd is lost.
func (r *rig) lose() {
	r.apply(Leadership{Term: 1}, Store{Lost: true, Since: r.now, Term: 1})
}

// regain brings it back, with this server as the leader of a new term.
func (r *rig) regain() {
	r.apply(Store{Term: 1}, Leadership{Leading: true, Term: 2})
}

// glass are the break-glass messages so far: transition, check and key.
func (r *rig) glass() (list []BreakGlass) {
	for _, a := range r.acted {
		if b, yes := a.(BreakGlass); yes {
			list = append(list, b)
		}
	}
	return list
}

func (r *rig) wantGlass(want ...string) []BreakGlass {
	r.t.Helper()
	var got []string
	for _, b := range r.glass() {
		what := b.Notification.GetTransition().String()
		if b.Again {
			what += " again"
		}
		got = append(got, what)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Fatalf("break-glass messages %v, want %v", got, want)
	}
	return r.glass()
}

func (r *rig) status(check string) *meshv1.CheckStatus {
	st, ok := r.s.Status("checks/"+check, r.now, true)
	if !ok {
		r.t.Fatalf("no status of %s", check)
	}
	return st
}

// opened are the incidents that were opened, as wished for.
func (r *rig) opened() (list []Open) {
	for _, a := range r.acted {
		if o, yes := a.(Open); yes && o.Key != MeshKey {
			list = append(list, o)
		}
	}
	return list
}

func (r *rig) resolved() (list []Resolve) {
	for _, a := range r.acted {
		if o, yes := a.(Resolve); yes && o.Key != MeshKey {
			list = append(list, o)
		}
	}
	return list
}

func opsReceiver() *meshv1.Receiver {
	return &meshv1.Receiver{Name: "receivers/ops", Webhook: &meshv1.Webhook{Url: "https://ops.example.com/hook"}}
}

func lostShop(t *testing.T) *rig {
	c := tcpCheck("shop", 2)
	c.CreateTime = timestamppb.New(epoch)
	r := up(t, c)
	r.apply(ReceiverPut{opsReceiver()})
	r.lose()
	return r
}

// round casts votes of all three, then lets time pass.
func (r *rig) rounds(n int, outcome meshv1.Result_Outcome) {
	for range n {
		r.votes("shop", outcome, "ams", "fra", "iad")
		r.after(20 * time.Second)
	}
}

func TestOutageWithoutStoreIsUndecidedAtOnceAndToldAfterTheGrace(t *testing.T) {
	r := lostShop(t)
	r.votes("shop", fail, "ams", "fra", "iad")
	st := r.status("shop")
	if !st.GetUndecided() || st.GetVerdict() != meshv1.CheckStatus_DOWN || !strings.Contains(st.GetUndecidedSummary(), "cannot be opened") {
		t.Fatalf("status while etcd is lost: %v", st)
	}
	r.after(4 * time.Second)
	r.wantGlass()
	r.after(2 * time.Second)
	b := r.wantGlass("OPENED")[0]
	if !strings.HasPrefix(b.Outage.Key, "outage-") || !b.Notification.GetBreakGlass() || b.Notification.GetBreakGlassKey() != b.Outage.Key || b.Notification.GetIncident() != "" {
		t.Fatalf("message %+v", b)
	}
	r.rounds(3, fail)
	r.wantGlass("OPENED")
	r.wantOwed()
	if e, _ := r.s.Explain("checks/shop", r.now); !strings.Contains(e.GetText(), "undecided since") {
		t.Fatalf("explain does not say that it is undecided:\n%s", e.GetText())
	}
}

func TestShortLossOfEtcdBreaksNoGlass(t *testing.T) {
	r := lostShop(t)
	r.votes("shop", fail, "ams", "fra", "iad")
	r.after(4 * time.Second)
	r.regain()
	r.after(10 * time.Second)
	r.wantGlass()
	r.wantOwed("OPENED checks/shop")
	if r.status("shop").GetUndecided() {
		t.Fatal("still undecided although the incident is open")
	}
}

func TestOutageThatGoesOnBecomesOneIncidentFromItsBeginning(t *testing.T) {
	r := lostShop(t)
	began := r.now
	r.rounds(3, fail)
	b := r.wantGlass("OPENED")[0]
	told := Told{Receiver: "receivers/ops", Transition: meshv1.Notification_OPENED, IdempotencyKey: b.Outage.Key + ".OPENED.ops", Time: r.now, Server: "servers/b"}
	seen := b.Outage
	seen.Told = []Told{told}
	r.apply(OutageSeen{seen})
	r.regain()
	r.after(time.Second)
	if len(r.opened()) != 1 {
		t.Fatalf("%d incidents opened, want 1", len(r.opened()))
	}
	i := r.opened()[0].Incident.GetIncident()
	if i.GetBreakGlassKey() != b.Outage.Key || i.GetStartTime().AsTime().After(began.Add(time.Second)) {
		t.Fatalf("incident %v", i)
	}
	text := fmt.Sprint(i.GetTimeline())
	if !strings.Contains(text, "by servers/b") || !strings.Contains(text, "not told of OPENED again") {
		t.Fatalf("timeline %s", text)
	}
	r.wantOwed() // the receiver was told already
	r.rounds(6, ok)
	r.wantOwed("RESOLVED checks/shop")
	if got := r.resolved()[0].Outbox[0].GetNotification().GetBreakGlassKey(); got != b.Outage.Key {
		t.Fatalf("the end carries key %q", got)
	}
	if left := r.s.Outages(); len(left) != 0 {
		t.Fatalf("outages left: %v", left)
	}
	r.rounds(2, fail)
	r.wantOwed("RESOLVED checks/shop", "OPENED checks/shop")
}

func TestReceiverWithTheSameURLIsSparedAndOthersAreTold(t *testing.T) {
	c := tcpCheck("shop", 2)
	c.Receivers = []string{"receivers/ops", "receivers/chat"}
	r := up(t, c)
	r.apply(ReceiverPut{opsReceiver()}, ReceiverPut{&meshv1.Receiver{Name: "receivers/chat", Webhook: &meshv1.Webhook{Url: "https://chat.example.com"}}})
	r.lose()
	r.rounds(2, fail)
	seen := r.wantGlass("OPENED")[0].Outage
	seen.Told = []Told{{Receiver: "receivers/pager", URLDigest: URLDigest(opsReceiver()), Transition: meshv1.Notification_OPENED, Time: r.now, Server: "servers/a"}}
	r.apply(OutageSeen{seen})
	r.regain()
	r.after(time.Second)
	out := r.opened()[0].Outbox
	if len(out) != 1 || out[0].GetNotification().GetReceiver() != "receivers/chat" {
		t.Fatalf("owed %v, want chat alone", out)
	}
	// Told by the URL of ops, so it hears of the end through the store.
	r.rounds(6, ok)
	for _, b := range r.wantGlass("OPENED", "RESOLVED again")[1:] {
		if !strings.Contains(fmt.Sprint(b.Covered), URLDigest(opsReceiver())) {
			t.Fatalf("covered %v", b.Covered)
		}
	}
}

func TestOutageThatBeganAndEndedWithoutEtcdBecomesAClosedIncident(t *testing.T) {
	r := lostShop(t)
	r.rounds(2, fail)
	r.rounds(6, ok)
	b := r.wantGlass("OPENED", "RESOLVED")
	if b[0].Outage.Key != b[1].Outage.Key || b[1].Outage.End.IsZero() {
		t.Fatalf("messages %+v", b)
	}
	if st := r.status("shop"); st.GetUndecided() || st.GetVerdict() != meshv1.CheckStatus_UP {
		t.Fatalf("status after the outage: %v", st)
	}
	end := b[1].Outage.End
	r.regain()
	r.after(time.Second)
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop") // no server has told anybody
	i := r.resolved()[0].Incident.GetIncident()
	if !i.GetEndTime().AsTime().Equal(end) || !strings.Contains(i.GetSummary(), "while etcd had no quorum") {
		t.Fatalf("closed incident %v", i)
	}
	r.after(time.Minute)
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop")
	if len(r.opened()) != 1 || len(r.s.Outages()) != 0 {
		t.Fatalf("%d opened, outages left %v", len(r.opened()), r.s.Outages())
	}
}

func TestIncidentThatEndsWithoutEtcdIsToldOnceUnderItsOwnID(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.apply(ReceiverPut{opsReceiver()})
	r.votes("shop", fail, "ams", "fra", "iad")
	r.after(time.Second)
	name := r.opened()[0].Incident.GetIncident().GetName()
	r.lose()
	r.rounds(6, ok)
	b := r.wantGlass("RESOLVED")[0]
	if b.Outage.Key != strings.TrimPrefix(name, "incidents/") || b.Notification.GetIncident() != name {
		t.Fatalf("message %+v, want the key of %s", b, name)
	}
	seen := b.Outage
	seen.Told = []Told{{Receiver: "receivers/ops", Transition: meshv1.Notification_RESOLVED, Time: r.now, Server: "servers/a"}}
	r.apply(OutageSeen{seen})
	r.regain()
	r.after(time.Second)
	r.wantOwed("OPENED checks/shop") // and no second RESOLVED
	if len(r.resolved()) != 1 || r.s.Incident("checks/shop") != nil {
		t.Fatal("the incident was not closed")
	}
}

func TestSecondOutageWithoutEtcdHasAnotherKeyAndBothBecomeIncidents(t *testing.T) {
	r := lostShop(t)
	r.rounds(2, fail)
	r.rounds(6, ok)
	r.rounds(2, fail)
	b := r.wantGlass("OPENED", "RESOLVED", "OPENED")
	if b[0].Outage.Key == b[2].Outage.Key {
		t.Fatalf("both outages have key %s", b[0].Outage.Key)
	}
	r.regain()
	r.after(time.Second)
	if len(r.opened()) != 2 || len(r.resolved()) != 1 || r.s.Incident("checks/shop") == nil {
		t.Fatalf("%d opened, %d resolved", len(r.opened()), len(r.resolved()))
	}
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop", "OPENED checks/shop")
}

// Two servers that saw the same checks and votes, at times that differ, give an outage the same key.
func TestKeyOfAnOutageIsTheSameOnEveryServer(t *testing.T) {
	keys := map[string]bool{}
	for _, late := range []time.Duration{0, 700 * time.Millisecond, 3 * time.Second} {
		r := lostShop(t)
		r.now = r.now.Add(late)
		r.rounds(2, fail)
		keys[r.wantGlass("OPENED")[0].Outage.Key] = true
	}
	if len(keys) != 1 {
		t.Fatalf("keys %v", keys)
	}
}

// A leader that has just been started knows of the outage from another server only.
func TestLeaderJoinsAnOutageThatOnlyAnotherServerSaw(t *testing.T) {
	a := lostShop(t)
	a.rounds(2, fail)
	seen := a.wantGlass("OPENED")[0].Outage
	seen.Told = []Told{{Receiver: "receivers/ops", Transition: meshv1.Notification_OPENED, Time: a.now, Server: "servers/a"}}

	c := tcpCheck("shop", 2)
	b := &rig{t: t, s: New(Config{Crowd: 5}), now: a.now, silent: map[string]bool{}}
	b.apply(Store{Unsettled: true}, ReceiverPut{opsReceiver()})
	b.apply(CheckPut{Check: c, ModRevision: 1}, Leadership{Leading: true, Term: 2})
	b.probers("ams", "fra", "iad")
	b.votes("shop", fail, "ams", "fra", "iad")
	b.after(10 * time.Second)
	if len(b.opened()) != 0 {
		t.Fatal("an incident was opened before the others were heard")
	}
	b.apply(OutageSeen{seen})
	b.apply(Store{})
	b.after(time.Second)
	if len(b.opened()) != 1 || b.opened()[0].Incident.GetIncident().GetBreakGlassKey() != seen.Key {
		t.Fatalf("opened %v", b.opened())
	}
	b.wantOwed()
	b.apply(OutageSeen{seen}) // the other still tells of it for a moment
	b.after(5 * time.Second)
	if len(b.opened()) != 1 || len(b.s.Outages()) != 0 {
		t.Fatalf("opened %d, outages %v", len(b.opened()), b.s.Outages())
	}
}

// A check that was deleted and made again has none of what happened to the one before it, of which a server still tells that has not heard of that.
func TestOutageOfADeletedCheckIsNotJoinedToOneOfTheSameName(t *testing.T) {
	a := lostShop(t)
	a.rounds(2, fail)
	seen := a.wantGlass("OPENED")[0].Outage
	seen.Told = []Told{{Receiver: "receivers/ops", Transition: meshv1.Notification_OPENED, Time: a.now, Server: "servers/a"}}

	c := tcpCheck("shop", 2)
	c.CreateTime = timestamppb.New(a.now)
	b := up(t, c)
	b.now = a.now
	b.apply(ReceiverPut{opsReceiver()}, OutageSeen{seen})
	b.rounds(2, ok)
	if len(b.opened()) != 0 || !b.joinedGlass() {
		t.Fatalf("opened %v, outages %v; want no incident, and that nobody waits for one", b.opened(), b.s.Outages())
	}
}

// The leader's transaction was committed, and neither it nor anybody else heard of it before etcd was lost.
func TestIncidentOpenedAsEtcdWasLostTakesTheOutageIn(t *testing.T) {
	r := lostShop(t)
	r.rounds(2, fail)
	key := r.wantGlass("OPENED")[0].Outage.Key
	i := &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, State: meshv1.Incident_OPEN, StartTime: timestamppb.New(r.now)}
	r.rev = 77 // the store is that far
	r.apply(Store{Term: 1}, IncidentPut{Key: "checks/shop", Incident: &statev1.StoredIncident{Incident: i}, ModRevision: 77})
	r.apply(Leadership{Leading: true, Term: 2})
	r.after(time.Second)
	if len(r.opened()) != 0 || r.s.Incident("checks/shop").GetIncident().GetBreakGlassKey() != key || len(r.s.Outages()) != 0 {
		t.Fatalf("incident %v, outages %v", r.s.Incident("checks/shop"), r.s.Outages())
	}
}

// While etcd is lost nobody leads, and every server asks those probers that are its own.
func TestConfirmationsAreAskedForWithoutALeaderWhileEtcdIsLost(t *testing.T) {
	r := lostShop(t)
	r.asked = nil
	r.vote("shop", "ams-1", fail)
	if len(r.asked) == 0 || !r.asked[0].Local {
		t.Fatalf("asked %v", r.asked)
	}
}

// A server that could not reach etcd for a while, while others could, tells of an outage that it made up from stale votes and told nobody of.
func TestLeaderBelievesItsOwnVotesRatherThanAServerThatWasAway(t *testing.T) {
	r := lostShop(t)
	r.rounds(3, fail)
	seen := r.wantGlass("OPENED")[0].Outage

	leader := lostShop(t)
	leader.regain()
	leader.rounds(2, ok)
	leader.apply(OutageSeen{seen})
	leader.rounds(2, ok)
	if len(leader.opened()) != 0 || leader.s.Incident("checks/shop") != nil {
		t.Fatal("an incident was written for what nobody else saw and nobody was told of")
	}
	// Once somebody was told, it has to be written down.
	seen.Told = []Told{{Receiver: "receivers/ops", Transition: meshv1.Notification_OPENED, Time: r.now, Server: "servers/b"}}
	leader.apply(OutageSeen{seen})
	leader.rounds(2, ok)
	if len(leader.opened()) != 1 {
		t.Fatalf("%d incidents were opened for what a receiver was told of, want 1", len(leader.opened()))
	}
}

// What a server made of its votes while it heard no other server is not written down by it when it is back, and leads: others had all the votes.
func TestServerThatWasAloneForgetsWhatItToldNobody(t *testing.T) {
	r := lostShop(t)
	r.apply(Store{Lost: true, Term: 1, Alone: true})
	r.rounds(3, fail)
	r.rounds(6, ok)
	r.apply(Store{Lost: true, Term: 1}) // the others are heard a moment before etcd is
	r.regain()
	r.rounds(2, ok)
	if len(r.opened()) != 0 || len(r.resolved()) != 0 {
		t.Fatalf("%d incidents opened and %d resolved for what nobody was told of", len(r.opened()), len(r.resolved()))
	}
}

// A server tells nobody of an outage that it saw without etcd. When etcd is back, another leads, which knows nothing of that, decides by its own votes, tells, and is
// done. When the first server comes to lead afterwards, there is nothing left for it to write down.
func TestOutageThatAnotherLeaderHasDecidedByItsVotesIsNotWrittenDownAgain(t *testing.T) {
	incident := func(r *rig) IncidentPut {
		i := &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, State: meshv1.Incident_OPEN,
			StartTime: timestamppb.New(r.now.Add(-30 * time.Second)), OpenTime: timestamppb.New(r.now)}
		return IncidentPut{Key: "checks/shop", Incident: &statev1.StoredIncident{Incident: i}, ModRevision: 77}
	}
	for name, then := range map[string]func(r *rig){
		"it follows all of it": func(r *rig) {
			r.apply(incident(r))
			r.rounds(6, ok)
			r.apply(IncidentGone{Key: "checks/shop"})
		},
		"it is told while etcd is away": func(r *rig) {
			r.apply(Store{Lost: true, Since: r.now, Term: 2}, incident(r), Store{Term: 2})
			r.rounds(6, ok)
			r.apply(IncidentGone{Key: "checks/shop"})
		},
		"it sees nothing of it": func(r *rig) {
			r.rounds(6, ok)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := lostShop(t)
			r.rounds(2, fail)
			r.wantGlass("OPENED")
			r.apply(Store{Term: 1})
			then(r)
			r.apply(Leadership{Leading: true, Term: 3})
			r.rounds(2, ok)
			if len(r.opened()) != 0 || len(r.resolved()) != 0 || len(r.s.Outages()) != 0 {
				t.Fatalf("%d incidents opened and %d resolved for what another leader has told; outages %v", len(r.opened()), len(r.resolved()), r.s.Outages())
			}
		})
	}
}

// A server that lost etcd before the others did hears from them, when they have lost it too, that an incident is open of which etcd has not told it.
func TestIncidentThatOnlyOtherServersKnowIsNotToldAgain(t *testing.T) {
	known := func(r *rig) IncidentKnown {
		return IncidentKnown{ModRevision: 77, Incident: &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, StartTime: timestamppb.New(r.now)}}
	}
	stored := func(r *rig) IncidentPut {
		i := known(r).Incident
		i.State, i.Receivers, i.Summary = meshv1.Incident_OPEN, []string{"receivers/ops"}, "all of it"
		return IncidentPut{Key: "checks/shop", Incident: &statev1.StoredIncident{Incident: i}, ModRevision: 77}
	}
	for name, early := range map[string]bool{"before the glass would be broken": true, "after it was": false} {
		t.Run(name, func(t *testing.T) {
			r := lostShop(t)
			if early {
				r.apply(known(r))
			}
			r.rounds(2, fail)
			r.apply(known(r), known(r))
			r.rounds(2, fail)
			if early {
				r.wantGlass()
			} else if r.wantGlass("OPENED"); !r.joinedGlass() {
				t.Fatal("the message that waits is not taken back")
			}
			if st := r.status("shop"); st.GetIncident() != "incidents/01x" || st.GetUndecided() {
				t.Fatalf("status %v", st)
			}
			r.rounds(6, ok) // the end is told, under the incident's own id
			all := r.glass()
			if b := all[len(all)-1]; b.Notification.GetTransition() != meshv1.Notification_RESOLVED || b.Outage.Incident != "incidents/01x" || b.Outage.Key != "01x" {
				t.Fatalf("message %+v", b)
			}
			r.regain()
			r.after(3 * time.Second)
			if len(r.resolved()) != 0 {
				t.Fatal("an incident was written from what another server knew of it")
			}
			r.apply(stored(r))
			r.after(time.Second)
			if len(r.opened()) != 0 || len(r.resolved()) != 1 || len(r.resolved()[0].Incident.GetIncident().GetReceivers()) != 1 {
				t.Fatalf("opened %v, resolved %v", r.opened(), r.resolved())
			}
		})
	}
}

// joinedGlass tells whether the mind has said of an outage that no message about it is to be sent any more.
func (r *rig) joinedGlass() bool {
	for _, a := range r.acted {
		if _, yes := a.(OutageJoined); yes {
			return true
		}
	}
	return false
}

// What another server spoke of, and etcd knows nothing of, does not keep the check from being decided for ever.
func TestIncidentThatEtcdNeverTellsOfIsForgotten(t *testing.T) {
	r := lostShop(t)
	r.apply(IncidentKnown{ModRevision: 77, Incident: &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN}})
	r.rounds(2, fail)
	r.wantGlass()
	r.regain()
	r.rounds(2, fail)
	if len(r.opened()) != 1 {
		t.Fatalf("%d incidents opened, want 1", len(r.opened()))
	}
	// While etcd answers, etcd alone counts.
	r.rounds(6, ok)
	r.apply(IncidentKnown{ModRevision: 99, Incident: &meshv1.Incident{Name: "incidents/01y", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN}})
	if i := r.s.Incident("checks/shop"); i != nil {
		t.Fatalf("incident %v", i)
	}
}

// A server that hears of an outage while it still holds votes of before it, with which the check has recovered, does not end it by them: it writes it down, when it leads
// at last, as its votes are then.
func TestOutageHeardOfIsNotEndedByVotesOfBeforeIt(t *testing.T) {
	other := lostShop(t)
	other.rounds(2, fail)
	seen := other.wantGlass("OPENED")[0].Outage

	r := lostShop(t)
	r.rounds(3, ok)
	seen.Start, seen.Due = r.now, r.now
	r.apply(Store{Term: 1, Unsettled: true}, OutageSeen{seen})
	r.after(time.Second)
	r.apply(Store{Term: 1})
	r.rounds(2, fail)
	r.apply(Leadership{Leading: true, Term: 2})
	r.after(time.Second)
	r.wantOwed("OPENED checks/shop")
	if len(r.opened()) != 1 || len(r.resolved()) != 0 || r.opened()[0].Incident.GetIncident().GetBreakGlassKey() != seen.Key {
		t.Fatalf("opened %v, resolved %v", r.opened(), r.resolved())
	}
}

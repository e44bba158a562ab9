package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// columns adds columns; one whose heading ends in `*` may be cut to fit, one that ends in `?` may be left out.
func (t *table) columns(headings ...string) {
	for _, h := range headings {
		name, optional := strings.CutSuffix(h, "?")
		name, flexible := strings.CutSuffix(name, "*")
		t.column(name, flexible, optional)
	}
}

// whyColumn says why a check is not UP, and what is odd about it; a table has it only when there is something to say.
const whyColumn = "WHY"

// why is what failing probes saw; of a check that nobody can judge, or that is not UP although no probe fails, how its verdict comes about; and what it is warned of.
func why(s *meshv1.CheckStatus) string {
	said, warnings := s.GetFailure(), strings.Join(s.GetWarnings(), "; ")
	switch v := s.GetVerdict(); {
	case v == meshv1.CheckStatus_UNKNOWN:
		said = s.GetSummary()
		if warnings != "" && s.GetReason() == meshv1.CheckStatus_TOO_FEW_DOMAINS {
			said, warnings = warnings, said // most likely they are the reason, and what comes last may be cut
		}
	case said == "" && v != meshv1.CheckStatus_UP && v != meshv1.CheckStatus_PAUSED:
		said = s.GetSummary()
	}
	return both(said, warnings)
}

// both joins two texts of which either may be empty.
func both(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

func checkColumns(t *table, wide bool) {
	t.columns("NAME*", "VERDICT", "SINCE", "URI*", "INTERVAL", "PROBERS", "QUORUM")
	if wide {
		t.columns("TIMEOUT", "RECEIVERS*", "LABELS*", "INCIDENT", "AGE", "SUMMARY*")
	} else {
		t.columns(whyColumn + "*")
	}
}

func checkRow(m proto.Message, wide bool, now time.Time) []cell {
	c := m.(*meshv1.Check)
	s, e := c.GetStatus(), spec.Effective(c, int(max(1, c.GetStatus().GetProbers())))
	probers, quorum := s.GetProbers(), s.GetQuorum()
	if probers == 0 {
		probers = e.GetProbers()
	}
	if quorum == 0 {
		quorum = e.GetQuorum()
	}
	row := []cell{
		text(spec.ID(c.GetName())), statusCell(s), text(age(s.GetSince(), now)), text(c.GetUri()),
		text(wished(e.GetInterval())), text(strconv.Itoa(int(probers))), text(strconv.Itoa(int(quorum))),
	}
	if wide {
		row = append(row, text(wished(e.GetTimeout())), text(list(c.GetReceivers())), text(pairs(c.GetLabels())),
			text(orDash(spec.ID(s.GetIncident()))), text(age(c.GetCreateTime(), now)), text(orDash(warned(s))))
	} else {
		row = append(row, text(why(s)))
	}
	return row
}

func statusColumns(t *table, wide bool) {
	t.columns("CHECK*", "VERDICT", "SINCE", "REASON")
	if wide {
		t.columns("PROBERS", "QUORUM", "FAILING*", "INCIDENT", "UPDATED")
	}
	t.columns("SUMMARY*")
}

func statusRow(m proto.Message, wide bool, now time.Time) []cell {
	s := m.(*meshv1.CheckStatus)
	row := []cell{text(spec.ID(s.GetCheck())), statusCell(s), text(age(s.GetSince(), now)), text(enumText(s.GetReason(), s.GetReason() == 0))}
	if wide {
		row = append(row, text(strconv.Itoa(int(s.GetProbers()))), text(strconv.Itoa(int(s.GetQuorum()))), text(list(s.GetFailingDatacenters())),
			text(orDash(spec.ID(s.GetIncident()))), text(age(s.GetUpdateTime(), now)))
	}
	return append(row, text(orDash(warned(s))))
}

// warned is the summary of a status with its warnings.
func warned(s *meshv1.CheckStatus) string {
	return both(s.GetSummary(), strings.Join(s.GetWarnings(), "; "))
}

func incidentColumns(t *table, wide bool) {
	if wide {
		t.columns("NAME", "CHECK*", "STATE", "VERDICT", "STARTED", "LASTED", "ACKED BY*")
		t.columns("REASON", "RECEIVERS*", "EVIDENCE", "TERM")
	} else {
		t.columns("NAME", "CHECK*", "STATE", "VERDICT?", "STARTED", "LASTED?", "ACKED BY*")
	}
	t.columns("SUMMARY*")
}

func incidentRow(m proto.Message, wide bool, now time.Time) []cell {
	i := m.(*meshv1.Incident)
	about := spec.ID(i.GetCheck())
	if i.GetKind() == meshv1.Incident_MESH {
		about = "(mesh)"
	}
	if i.GetKind() == meshv1.Incident_GROUP {
		about = fmt.Sprintf("(%d checks)", i.GetAffectedCount())
	}
	state, lasted := cell{"OPEN", red}, age(i.GetStartTime(), now)
	if i.GetState() == meshv1.Incident_RESOLVED {
		// Rounded, as in the sentence that announced the end.
		state, lasted = cell{"RESOLVED", green}, span(i.GetEndTime().AsTime().Sub(i.GetStartTime().AsTime()).Round(time.Second))
	}
	row := []cell{
		text(spec.ID(i.GetName())), text(orDash(about)), state, verdictCell(i.GetVerdict()),
		text(age(i.GetStartTime(), now)), text(lasted), text(orDash(i.GetAcknowledgedBy())),
	}
	if wide {
		row = append(row, text(enumText(i.GetReason(), i.GetReason() == 0)), text(list(i.GetReceivers())),
			text(count(len(i.GetEvidence()), "vote")), text(strconv.FormatInt(int64(i.GetTerm()), 10)))
	}
	return append(row, text(orDash(i.GetSummary())))
}

func proberColumns(t *table, wide bool) {
	t.columns("NAME*", "DATACENTER*", "STATE", "SINCE", "CHECKS", "REFUSED", "SERVER*", "RTT", "BUILD*")
	if wide {
		t.columns("OFFSET", "SPOOLED", "DROPPED", "IN SYNC", "CANARIES*", "CAPABILITIES*", "DOMAINS*")
	}
}

func proberRow(m proto.Message, wide bool, now time.Time) []cell {
	p := m.(*meshv1.Prober)
	state := cell{enumText(p.GetState(), p.GetState() == 0), plainText}
	switch p.GetState() {
	case meshv1.Prober_ONLINE:
		state.colour = green
	case meshv1.Prober_OFFLINE:
		state.colour = red
	case meshv1.Prober_DRAINED, meshv1.Prober_QUARANTINED:
		state.colour = yellow
	}
	refused := text(strconv.Itoa(len(p.GetRefusals())))
	if len(p.GetRefusals()) > 0 {
		refused.colour = yellow
	}
	row := []cell{
		text(spec.ID(p.GetName())), text(p.GetDatacenter()), state, text(age(p.GetStateTime(), now)), text(strconv.Itoa(int(p.GetAssignments()))),
		refused, text(orDash(spec.ID(p.GetServer()))), text(brief(p.GetRoundTripTime())), text(orDash(p.GetBuild())),
	}
	if wide {
		row = append(row, text(brief(p.GetClockOffset())), text(strconv.FormatInt(p.GetSpooled(), 10)), text(strconv.FormatInt(p.GetDropped(), 10)),
			text(yesNo(p.GetInSync())), canaryCell(p), text(list(p.GetCapabilities())), text(pairs(p.GetDomains())))
	}
	return row
}

// canaryCell says how many canaries answer, by family.
func canaryCell(p *meshv1.Prober) cell {
	c := text("-")
	var words []string
	for _, s := range p.GetCanaries() {
		word := fmt.Sprintf("%s %d/%d", s.GetFamily(), s.GetAnswering(), s.GetTargets())
		if s.GetFailing() {
			word, c.colour = word+" FAILING", red
		}
		words = append(words, word)
	}
	if len(words) > 0 {
		c.text = strings.Join(words, ", ")
	}
	return c
}

func serverColumns(t *table, wide bool) {
	t.columns("NAME*", "DATACENTER*", "ROLE", "TERM", "HEARD", "PROBERS", "HEARS", "LAG", "MISSES*")
	if wide {
		t.columns("GRPC", "HTTP", "VERSION*", "REVISION", "OFFSET", "LABELS*", "BOOT*")
	} else {
		t.columns("GRPC?", "UP")
	}
}

func serverRow(m proto.Message, wide bool, now time.Time) []cell {
	s := m.(*meshv1.Server)
	role, heard := text("follower"), cell{"yes", green}
	if s.GetLeader() {
		role = cell{"leader", green}
	}
	if !s.GetHeard() {
		heard = cell{"no", red}
		if s.GetSilentTime() != nil {
			heard.text = "not for " + age(s.GetSilentTime(), now)
		}
	}
	if s.GetGone() {
		role = cell{"gone", red}
	}
	row := []cell{
		text(spec.ID(s.GetName())), text(orDash(s.GetDatacenter())), role, text(strconv.FormatInt(int64(s.GetTerm()), 10)), heard,
		text(strconv.Itoa(int(s.GetSessions()))), text(strconv.Itoa(int(s.GetHears()))), lagCell(s), missesCell(s),
	}
	if wide {
		return append(row, text(orDash(s.GetGrpcAddress())), text(orDash(s.GetHttpAddress())), text(orDash(s.GetVersion())), text(strconv.FormatInt(s.GetRevision(), 10)),
			text(brief(s.GetClockOffset())), text(pairs(s.GetLabels())), text(orDash(s.GetBootId())))
	}
	return append(row, text(orDash(s.GetGrpcAddress())), text(age(s.GetStartTime(), now)))
}

// lagCell is how far a server is behind: revisions of the state, results of the history.
func lagCell(s *meshv1.Server) cell {
	var parts []string
	if n := s.GetRevisionLag(); n > 0 {
		parts = append(parts, count(int(n), "revision"))
	}
	if n := s.GetHistoryLag(); n > 0 {
		parts = append(parts, count(int(n), "result"))
	}
	if parts == nil {
		return text("-")
	}
	return text(strings.Join(parts, ", "))
}

// missesCell names the servers that a server does not hear.
func missesCell(s *meshv1.Server) cell {
	var missed []string
	for _, p := range s.GetPeers() {
		if !p.GetHeard() {
			missed = append(missed, p.GetServer())
		}
	}
	if missed == nil {
		return text("-")
	}
	return cell{list(missed), yellow}
}

func receiverColumns(t *table, wide bool) {
	t.columns("NAME*", "KIND", "STATE", "OWED", "DELIVERED", "TARGET*")
	if wide {
		t.columns("MESH", "GIVES UP AFTER", "LAST ERROR*")
	}
}

func receiverRow(m proto.Message, wide bool, now time.Time) []cell {
	r := m.(*meshv1.Receiver)
	state := cell{"ok", green}
	switch {
	case r.GetPaused():
		state = cell{"paused", dim}
	case r.GetLastError() != "":
		state = cell{"failing", red}
	case r.GetLastDeliveryTime() == nil:
		state = cell{"unused", dim}
	}
	owed, delivered := strconv.Itoa(int(r.GetOwed())), "never"
	if r.GetLastDeliveryTime() != nil {
		delivered = age(r.GetLastDeliveryTime(), now)
	}
	if r.GetDeliveryUnknown() {
		owed, delivered = "?", "?"
		if !r.GetPaused() {
			state = cell{"?", yellow}
		}
	}
	row := []cell{text(spec.ID(r.GetName())), text("webhook"), state, text(owed), text(delivered), text(r.GetWebhook().GetUrl())}
	if wide {
		giveUp := wished(r.GetGiveUpAfter())
		if r.GetGiveUpAfter() == nil {
			giveUp = "24h"
		}
		row = append(row, text(yesNo(r.GetMeshIncidents())), text(giveUp), text(orDash(r.GetLastError())))
	}
	return row
}

// enumText is an enum's name, `-` when it is not set.
func enumText(v fmt.Stringer, unset bool) string {
	if unset {
		return "-"
	}
	return v.String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

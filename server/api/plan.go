package api

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/nearest"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api/fields"
	"github.com/probemesh/probemesh/server/store"
)

const (
	// applyChecksMax and applyReceiversMax bound one request.
	applyChecksMax, applyReceiversMax = 10_000, 1_000
	// faultsMax is how many faults are listed: beyond that, the error would be larger than some clients take.
	faultsMax = 1_000
)

// wish is what an Apply asks for, in canonical form. It shares no memory with the request.
type wish struct {
	checks      []*meshv1.Check
	receivers   []*meshv1.Receiver
	prune       bool
	pruneLabels map[string]string
}

// wishOf reads a request and gives every fault that shows without the store.
func wishOf(req *meshv1.ApplyRequest) (wish, []fault.Violation) {
	w := wish{prune: req.GetPrune(), pruneLabels: req.GetPruneLabels()}
	faults := requestIDFaults(req.GetRequestId())
	if n := len(req.GetChecks()); n > applyChecksMax {
		return w, append(faults, fault.Violation{Field: "checks", Problem: fmt.Sprintf("has %d entries; at most %d are allowed in one request", n, applyChecksMax)})
	}
	if n := len(req.GetReceivers()); n > applyReceiversMax {
		return w, append(faults, fault.Violation{Field: "receivers", Problem: fmt.Sprintf("has %d entries; at most %d are allowed in one request", n, applyReceiversMax)})
	}
	if len(w.pruneLabels) > 0 && !w.prune {
		faults = append(faults, fault.Violation{Field: "prune_labels", Problem: "is given without prune; set prune too, or leave it out"})
	}
	seen := map[string]string{}
	for i, given := range req.GetReceivers() {
		r, path := proto.CloneOf(given), fmt.Sprintf("receivers[%d]", i)
		spec.NormalizeReceiver(r)
		faults = append(faults, spec.ValidateReceiver(r, path)...)
		faults = append(faults, duplicate(seen, r.GetName(), path)...)
		w.receivers = append(w.receivers, r)
	}
	for i, given := range req.GetChecks() {
		c, path := proto.CloneOf(given), fmt.Sprintf("checks[%d]", i)
		spec.Normalize(c)
		faults = append(faults, spec.ValidateCheck(c, path)...)
		faults = append(faults, duplicate(seen, c.GetName(), path)...)
		w.checks = append(w.checks, c)
	}
	return w, faults
}

func duplicate(seen map[string]string, name, path string) []fault.Violation {
	first, ok := seen[name]
	if !ok || name == "" {
		seen[name] = path
		return nil
	}
	return []fault.Violation{{Field: path + ".name", Problem: fmt.Sprintf("%q is the name of %s already; names must be unique", name, first)}}
}

// held is what the store has: of checks at least those that are wished and those that may be pruned, and every receiver.
type held struct {
	checks    map[string]*meshv1.Check
	receivers map[string]*meshv1.Receiver
}

// dangling gives a fault for each receiver that a wished check names and that will not exist.
func dangling(w wish, h held) []fault.Violation {
	wished := map[string]bool{}
	for _, r := range w.receivers {
		wished[r.GetName()] = true
	}
	var faults []fault.Violation
	for i, c := range w.checks {
		for j, name := range c.GetReceivers() {
			_, exists := h.receivers[name]
			path := fmt.Sprintf("checks[%d].receivers[%d]", i, j)
			switch _, err := spec.ParseName(spec.Receivers, name); {
			case err != nil || wished[name]:
			case !exists:
				faults = append(faults, fault.Violation{Field: path, Problem: name + " does not exist" + meant(name, wished, h.receivers) + "; put it into the request, or create it first"})
			case w.prunesReceivers():
				faults = append(faults, fault.Violation{Field: path, Problem: name + " is not in the request, so prune would delete it; put it into the request"})
			}
		}
	}
	return faults
}

// meant guesses which receiver a name that does not exist was meant to be.
func meant(name string, wished map[string]bool, held map[string]*meshv1.Receiver) string {
	var ids []string
	for n := range wished {
		ids = append(ids, spec.ID(n))
	}
	for n := range held {
		ids = append(ids, spec.ID(n))
	}
	slices.Sort(ids)
	if near := nearest.To(spec.ID(name), ids); near != "" {
		return fmt.Sprintf(" (did you mean %s?)", near)
	}
	return ""
}

func (w wish) prunesReceivers() bool { return w.prune && len(w.pruneLabels) == 0 }

// outdated gives a fault for each etag in the request that is not the stored one. What is as wished has none after the call began to write: it
// may be the call's own work.
func outdated(w wish, h held, writing bool) []fault.Violation {
	var faults []fault.Violation
	compare := func(path, etag, current string, asWished func() bool) {
		switch {
		case etag == "" || etag == current || (writing && current != "" && asWished()):
		case current == "":
			faults = append(faults, fault.Violation{Field: path, Problem: "is that of a resource that was deleted since; leave it out to create it anew"})
		default:
			faults = append(faults, fault.Violation{Field: path,
				Problem: fmt.Sprintf("is %q, but the stored one is %q: it changed since you read it; read it again, or leave the etag out", etag, current)})
		}
	}
	for i, r := range w.receivers {
		compare(fmt.Sprintf("receivers[%d].etag", i), r.GetEtag(), h.receivers[r.GetName()].GetEtag(),
			func() bool { return len(fields.Diff(h.receivers[r.GetName()], r)) == 0 })
	}
	for i, c := range w.checks {
		compare(fmt.Sprintf("checks[%d].etag", i), c.GetEtag(), h.checks[c.GetName()].GetEtag(),
			func() bool { return len(fields.Diff(h.checks[c.GetName()], c)) == 0 })
	}
	return faults
}

// plan gives what has to change so that what is held becomes what is wished: for people, sorted by name, and for the store.
func plan(w wish, h held) ([]*meshv1.Change, store.Plan) {
	var changes []*meshv1.Change
	var p store.Plan
	keepReceivers, keepChecks := map[string]bool{}, map[string]bool{}
	for _, r := range w.receivers {
		keepReceivers[r.GetName()] = true
		old := h.receivers[r.GetName()]
		change := difference(old, r, old != nil)
		if changes = append(changes, change); change.GetAction() != meshv1.Change_UNCHANGED {
			r = proto.CloneOf(r)
			r.CreateTime = old.GetCreateTime()
			p.PutReceivers = append(p.PutReceivers, store.PlannedReceiver{Receiver: r, ModRevision: revisionOf(old.GetEtag())})
		}
	}
	for _, c := range w.checks {
		keepChecks[c.GetName()] = true
		old := h.checks[c.GetName()]
		change := difference(old, c, old != nil)
		if changes = append(changes, change); change.GetAction() != meshv1.Change_UNCHANGED {
			c = proto.CloneOf(c)
			c.CreateTime = old.GetCreateTime()
			p.PutChecks = append(p.PutChecks, store.PlannedCheck{Check: c, ModRevision: revisionOf(old.GetEtag())})
		}
	}
	for name, c := range h.checks {
		if w.prune && !keepChecks[name] && labelled(c.GetLabels(), w.pruneLabels) {
			p.DeleteChecks = append(p.DeleteChecks, store.PlannedDelete{Name: name, ModRevision: revisionOf(c.GetEtag())})
		}
	}
	for name, r := range h.receivers {
		if w.prunesReceivers() && !keepReceivers[name] {
			p.DeleteReceivers = append(p.DeleteReceivers, store.PlannedDelete{Name: name, ModRevision: revisionOf(r.GetEtag())})
		}
	}
	for _, deletes := range [][]store.PlannedDelete{p.DeleteChecks, p.DeleteReceivers} {
		slices.SortFunc(deletes, func(a, b store.PlannedDelete) int { return strings.Compare(a.Name, b.Name) })
		for _, d := range deletes {
			changes = append(changes, &meshv1.Change{Name: d.Name, Action: meshv1.Change_DELETE})
		}
	}
	slices.SortFunc(changes, func(a, b *meshv1.Change) int { return strings.Compare(a.GetName(), b.GetName()) })
	return changes, p
}

func difference[T resource](old, wished T, exists bool) *meshv1.Change {
	change := &meshv1.Change{Name: wished.GetName(), Action: meshv1.Change_CREATE}
	if exists {
		change.Action = meshv1.Change_UNCHANGED
		if change.Fields = fields.Diff(old, wished); len(change.Fields) > 0 {
			change.Action = meshv1.Change_UPDATE
		}
	}
	return change
}

func labelled(labels, wanted map[string]string) bool {
	for key, value := range wanted {
		if have, ok := labels[key]; !ok || have != value {
			return false
		}
	}
	return true
}

package probe

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe/tls/inspect"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// excess is the first bound that an attempt exceeds.
type excess struct {
	phase       meshv1.Result_Phase // PHASE_UNSPECIFIED for the whole
	took, bound time.Duration
}

// String says for how long the phase went on, and how long it may.
func (e excess) String() string {
	what := "the whole probe"
	if e.phase != meshv1.Result_PHASE_UNSPECIFIED {
		what = strings.ToLower(e.phase.String())
	}
	return fmt.Sprintf("%s took %s, more than %s", what, round(e.took), e.bound)
}

// field is the name of the bound in PhaseLimits.
func (e excess) field() string {
	if e.phase == meshv1.Result_PHASE_UNSPECIFIED {
		return "total"
	}
	return strings.ToLower(e.phase.String())
}

// exceeds compares an attempt that has ended with bounds: the phases in their order, then the whole.
func exceeds(l *meshv1.PhaseLimits, a *Attempt) (excess, bool) {
	if l == nil {
		return excess{}, false
	}
	for _, b := range [...]struct {
		phase meshv1.Result_Phase
		bound *durationpb.Duration
	}{
		{meshv1.Result_RESOLVE, l.Resolve}, {meshv1.Result_CONNECT, l.Connect}, {meshv1.Result_HANDSHAKE, l.Handshake},
		{meshv1.Result_PROCESSING, l.Processing}, {meshv1.Result_TRANSFER, l.Transfer},
	} {
		if b.bound != nil && a.happened[b.phase] && a.spent[b.phase] > b.bound.AsDuration() {
			return excess{b.phase, a.spent[b.phase], b.bound.AsDuration()}, true
		}
	}
	if took := a.ended.Sub(a.start) + a.options.Pin.Took; l.Total != nil && took > l.Total.AsDuration() {
		return excess{meshv1.Result_PHASE_UNSPECIFIED, took, l.Total.AsDuration()}, true
	}
	return excess{}, false
}

// tooSlow is the failure of a probe that exceeds a bound.
func tooSlow(l *meshv1.PhaseLimits, a *Attempt) *Failure {
	e, ok := exceeds(l, a)
	if !ok {
		return nil
	}
	return &Failure{Class: meshv1.Result_SLOW_PHASE, Phase: e.phase, Sentence: fmt.Sprintf("%s (fail_above.%s)", e, e.field())}
}

// degraded says why a good answer is degraded; empty when it is not.
func (p *Plan) degraded(a *Attempt, answer Answer) string {
	if d, ok := answer.(Degrader); ok {
		if why := d.Degraded(); why != "" {
			return clip(why, maxSentence)
		}
	}
	if a.tls != nil {
		if why := inspect.Degraded(p.tls, a.tls, a.start); why != "" {
			return clip(why, maxSentence)
		}
	}
	if e, ok := exceeds(p.DegradedAbove, a); ok {
		return fmt.Sprintf("%s (degraded_above.%s)", e, e.field())
	}
	return ""
}

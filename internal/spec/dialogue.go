package spec

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/capture"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of dialogues, as tcp_probe.proto documents them.
const (
	MaxSteps         = 32
	MaxStepBytes     = 4 << 10
	MaxLineLimit     = 64 << 10
	DefaultLineLimit = 64 << 10
)

// steps notes what the steps before have named and captured, while the steps of a dialogue are checked in order.
type steps struct {
	f        *faults
	names    map[string]bool
	captured map[string]bool
	groups   int
	longest  time.Duration
}

// newSteps begins with the first step. timeout is that of the check, as written.
func newSteps(f *faults, timeout *durationpb.Duration, interval *durationpb.Duration) *steps {
	longest := DefaultTimeout
	if interval != nil {
		longest = min(longest, interval.AsDuration())
	}
	if timeout != nil {
		longest = timeout.AsDuration()
	}
	return &steps{f: f, names: make(map[string]bool), captured: make(map[string]bool), longest: longest}
}

// name checks the name of a step.
func (s *steps) name(at, name string) {
	if name == "" {
		return
	}
	if !keyPattern.MatchString(name) {
		s.f.add(at+".name", "%q is not 1 to 63 characters of a-z, 0-9, _, . and -", clip(name))
	}
	if s.names[name] {
		s.f.add(at+".name", "%q is the name of an earlier step; write another", clip(name))
	}
	s.names[name] = true
}

// template checks a text to send.
func (s *steps) template(at, text string, escapes bool) {
	bounded(s.f, at, len(text), MaxStepBytes)
	t, err := ParseTemplate(text, escapes)
	if err != nil {
		s.f.add(at, "%s", err)
		return
	}
	for _, hole := range t.Holes() {
		if n, err := strconv.Atoi(hole); err == nil {
			if n > s.groups {
				s.f.add(at, "sends ${%s}, and the newest match before it has %d groups", hole, s.groups)
			}
			continue
		}
		if !s.captured[hole] {
			s.f.add(at, "sends ${%s}, which no earlier step captures; write (?P<%s>...) in its expect, or $${ for a plain ${", hole, hole)
		}
	}
}

// pattern checks a regular expression; nil when it is unset or not valid.
func (s *steps) pattern(at, pattern string) *regexp.Regexp {
	if pattern == "" {
		return nil
	}
	re, err := Regexp(pattern)
	if err != nil {
		s.f.add(at, "%s", err)
		return nil
	}
	return re
}

// matched notes what a match captures.
func (s *steps) matched(at string, re *regexp.Regexp) {
	if re == nil {
		return
	}
	s.groups = re.NumSubexp()
	for _, name := range re.SubexpNames() {
		if name == "" {
			continue
		}
		if !captureName.MatchString(name) {
			s.f.add(at, "has a group named %q, which is not 1 to 63 characters of a-z, 0-9 and _, beginning with a letter", clip(name))
		}
		s.capture(at, name)
	}
}

// capture notes a name.
func (s *steps) capture(at, name string) {
	if s.captured[name] = true; len(s.captured) == capture.MaxCaptures+1 {
		s.f.add(at, "captures more than the %d values that a check may have; remove some", capture.MaxCaptures)
	}
}

// captures checks the list of captures of a step. matched tells whether the step matches anything.
func (s *steps) captures(at string, list []*meshv1.Capture, matched bool) {
	if len(list) > 0 && !matched {
		s.f.add(at, "is given where nothing is expected; add what must come")
	}
	_, faults := capture.Compile(list, false)
	for _, one := range faults {
		field := fmt.Sprintf("%s[%d]", at, one.Index)
		if one.Field != "" {
			field += "." + one.Field
		}
		s.f.add(field, "%s", one.Problem)
	}
	for _, c := range list {
		s.capture(at, c.GetName())
	}
}

// timeout checks the time of a step.
func (s *steps) timeout(at string, d *durationpb.Duration) {
	if d != nil {
		duration(s.f, at+".timeout", d, 0, time.Millisecond, s.longest)
	}
}

// dialogue checks the steps of kind tcp, or of kind udp, where datagrams take the place of lines.
func dialogue(f *faults, field string, list []*meshv1.DialogueStep, c *meshv1.Check, datagrams bool) {
	count(f, field, len(list), MaxSteps)
	s := newSteps(f, c.GetTimeout(), c.GetInterval())
	for i, step := range list[:min(len(list), MaxSteps)] {
		at := fmt.Sprintf("%s[%d]", field, i)
		s.name(at, step.GetName())
		s.sends(at, step)
		s.expects(at, step)
		s.timeout(at, step.GetTimeout())
		if datagrams && (step.GetStarttls() || step.GetExpectClose()) {
			f.add(at, "has starttls or expect_close, which datagrams do not know; remove it")
		}
	}
}

// sends checks what a step sends.
func (s *steps) sends(at string, step *meshv1.DialogueStep) {
	given := 0
	for _, set := range []bool{step.GetSend() != "", len(step.GetSendBytes()) > 0, step.GetSendEscaped() != ""} {
		if set {
			given++
		}
	}
	if given > 1 {
		s.f.add(at, "has more than one of send, send_bytes and send_escaped; keep one")
	}
	s.template(at+".send", step.GetSend(), false)
	s.template(at+".send_escaped", step.GetSendEscaped(), true)
	bounded(s.f, at+".send_bytes", len(step.GetSendBytes()), MaxStepBytes)
	if given == 0 && step.GetExpect() == "" && len(step.GetExpectBytes()) == 0 && !step.GetStarttls() && !step.GetExpectClose() {
		s.f.add(at, "does nothing; write what to send or to expect, or remove it")
	}
}

// expects checks what a step expects.
func (s *steps) expects(at string, step *meshv1.DialogueStep) {
	enum(s.f, at+".match", step.GetMatch())
	s.matched(at+".expect", s.pattern(at+".expect", step.GetExpect()))
	s.pattern(at+".reject", step.GetReject())
	s.captures(at+".capture", step.GetCapture(), step.GetExpect() != "")
	bounded(s.f, at+".expect_bytes", len(step.GetExpectBytes()), MaxStepBytes)
	switch {
	case step.GetExpect() != "" && len(step.GetExpectBytes()) > 0:
		s.f.add(at+".expect_bytes", "is given besides expect; keep one, or make two steps of them")
	case step.GetExpect() == "" && step.GetReject() != "":
		s.f.add(at+".reject", "is given without expect, so that nothing would end the step; add that")
	case step.GetExpect() == "" && step.GetMatch() != 0:
		s.f.add(at+".match", "is given without expect; remove it")
	}
	if step.GetStarttls() && step.GetExpectClose() {
		s.f.add(at+".expect_close", "is given besides starttls; make two steps of them")
	}
}
